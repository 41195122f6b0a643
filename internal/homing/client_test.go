package homing_test

import "time"

// client is one device of a user; it has a session, or tries to get one, or stays away for a while.
type client struct {
	user    *user
	edge    *edge
	session *session
	attempt int
}

func newClient(u *user) {
	c := &client{user: u}
	u.clients = append(u.clients, c)
	u.w.after(u.w.some(0, 3*time.Second), c.connect)
}

func (c *client) connect() {
	w := c.user.w
	if c.user.isAway || c.session != nil {
		return
	}
	c.attempt++
	attempt := c.attempt
	if len(w.edges) == 0 {
		w.after(w.some(50*time.Millisecond, 400*time.Millisecond), c.connect)
		return
	}
	e := w.edges[w.rand.IntN(len(w.edges))]
	c.edge = e
	w.after(5*time.Second, func() { // whatever became of it
		if c.attempt == attempt && c.session == nil {
			c.connect()
		}
	})
	w.after(w.network.delay(), func() {
		e.do(func() {
			e.connect(c, func(s *session) {
				w.after(w.network.delay(), func() { c.connected(attempt, e, s) })
			})
		})
	})
}

func (c *client) connected(attempt int, e *edge, s *session) {
	w := c.user.w
	switch {
	case s == nil:
		if attempt == c.attempt {
			w.after(w.some(20*time.Millisecond, 300*time.Millisecond), func() {
				if attempt == c.attempt {
					c.connect()
				}
			})
		}
	case attempt != c.attempt || c.user.isAway:
		e.hangUp(s)
	case e.isDead:
		c.connect()
	default:
		c.session = s
		if !w.isQuiet && w.chance(50) {
			w.after(w.some(200*time.Millisecond, 8*time.Second), func() {
				if c.session == s && !w.isQuiet {
					c.leave()
					w.after(w.some(0, 2*time.Second), c.connect)
				}
			})
		}
	}
}

func (c *client) leave() {
	s := c.session
	c.session = nil
	w := c.user.w
	e := c.edge
	w.after(w.network.delay(), func() { e.hangUp(s) })
}

// lost is a session that ended without the client's will: it comes back at once, or nearly so.
func (c *client) lost(s *session) {
	w := c.user.w
	if c.session != s {
		return
	}
	c.session = nil
	w.after(time.Duration(one(w, 0, 5, 30, 300))*time.Millisecond, c.connect)
}
