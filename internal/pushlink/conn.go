package pushlink

import "sync"

// runConn is the life of an upgraded connection.
func (l *Link) runConn(dial Dial) error {
	conn, in, err := dial(l.ctx)
	if err != nil {
		return err
	}
	out := newOutbox(conn, l.frame)
	var writing sync.WaitGroup
	writing.Go(func() { out.run(l.ctx) })
	defer writing.Wait()
	defer l.cancel()
	r := &l.reading
	r.conn = &watched{Conn: quickly(conn), after: pingAfter, timeout: pingTimeout, ping: func() {
		l.mu.Lock()
		l.ping = true
		l.mu.Unlock()
		out.flush()
	}}
	r.frames = frames{in: readOn(in, r.conn)}
	r.attended = true // nobody else knows of it yet
	if err := r.conn.watch(); err != nil {
		return err
	}
	if err := l.read(); err != nil {
		return err
	}
	l.mu.Lock()
	l.outbox = out
	l.mu.Unlock()
	out.flush()
	for {
		if err := l.awaitTurn(); err != nil {
			return err
		}
		if err := l.read(); err != nil {
			return err
		}
	}
}

// frame appends the next frame to send.
func (l *Link) frame(buffer []byte) []byte {
	l.mu.Lock()
	ping := l.ping
	l.ping = false
	l.mu.Unlock()
	buffer = append(buffer, make([]byte, frameHead)...)
	if buffer = l.take(buffer); len(buffer) == frameHead && !ping {
		return buffer[:0]
	}
	endFrame(buffer, 0)
	return buffer
}
