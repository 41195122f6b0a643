package systemtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/testkit"
)

// JavaScript that tells what the operator's page shows.
const (
	isLive  = `document.body?.dataset.link === 'live' && document.querySelector('#open')?.hidden === false`
	levelIs = isLive + ` && document.body.dataset.level === %s`
	rowOf   = `document.querySelector('#rows tr[data-member="%s"]')`
)

// openAdmin opens the operator's page of a listener and waits for its first figures.
func openAdmin(t *testing.T, browser context.Context, addr, awaited string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	tb := &tab{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	if err := chromedp.Listen(ctx, tb.listen); err != nil {
		t.Fatal(err)
	}
	tb.do(command(log.Enable, cdp.Empty{}), chromedp.EmulateViewport(1280, 900), chromedp.Navigate("http://"+addr+"/"))
	tb.wait("the page of "+addr, awaited)
	return tb
}

// shootAdmin keeps pictures of the whole page, wide and narrow, light and dark, and checks that nothing is wider than its window.
func (tb *tab) shootAdmin(name string) {
	tb.t.Helper()
	dir := artifacts(tb.t)
	for _, width := range []int64{1280, 400} {
		for _, scheme := range []string{"light", "dark"} {
			tb.do(
				command(page.BringToFront, cdp.Empty{}),
				chromedp.EmulateViewport(width, 900),
				command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
					{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
				}}),
			)
			tb.wait(fmt.Sprintf("the page %d px wide", width), fmt.Sprintf(`innerWidth === %d`, width))
			if over := eval[int](tb, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
				tb.t.Errorf("%s at %d px scrolls sideways by %d px, want not at all", name, width, over)
			}
			ctx, cancel := context.WithTimeout(tb.ctx, browserCall)
			picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			cancel()
			if err != nil {
				tb.t.Fatal(err)
			}
			file := filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", name, width, scheme))
			if err := os.WriteFile(file, picture, 0o644); err != nil {
				tb.t.Fatal(err)
			}
		}
	}
	tb.t.Logf("pictures of %s are in %s", name, dir)
}

// TestAdminPage has an operator look at a real cluster: calm, while users move, while a member is drained by a click, and with one dead.
func TestAdminPage(t *testing.T) {
	t.Setenv("SELVEDGE_NAME", "edge-1")
	c := newCluster(t, 2, 1)
	c.addBackend("b3", "--drain-timeout", "8s")
	c.awaitRing(3)
	users := userNames(600)
	devices := online(t, users, 1, c.edges...)
	browser := startBrowser(t)
	tb := openAdmin(t, browser, c.edges[0].admin, fmt.Sprintf(levelIs, `'calm'`))
	stop := c.pushing(users)

	t.Run("calm", func(t *testing.T) {
		tb.t = t
		tb.wait("every session", `document.querySelector('#t-sessions').textContent === '600'`)
		tb.wait("pushes", `parseFloat(document.querySelector('#t-pushes').textContent) > 1`)
		if said := tb.text("#headline"); said != "Healthy" {
			t.Errorf("the page says %q of a calm cluster", said)
		}
		shown := 0
		for _, b := range c.backends {
			row := fmt.Sprintf(rowOf, b.id)
			tb.wait("the row of "+b.id, row)
			shown += eval[int](tb, row+`.querySelectorAll('td')[2].firstChild.textContent | 0`)
			if state := eval[string](tb, row+`.querySelector('.state').textContent`); state != "serving" {
				t.Errorf("%s is shown as %q", b.id, state)
			}
		}
		if shown != 600 {
			t.Errorf("the rows add up to %d sessions, want 600", shown)
		}
		tb.shootAdmin("admin-calm")
	})

	t.Run("a user", func(t *testing.T) {
		tb.t = t
		owner := c.owners(users[:1])[users[0]]
		tb.do(chromedp.EmulateViewport(1280, 900), command(page.BringToFront, cdp.Empty{}),
			chromedp.Evaluate[chromedp.Void](`document.activeElement.blur()`), press("/", "Slash", 191), chromedp.KeyEvent(users[0]), chromedp.KeyEvent("\r"))
		tb.wait("where the user is", fmt.Sprintf(`document.querySelector('#user-sessions .tag')?.textContent === %s &&
			document.querySelector('#user-facts .tag')?.textContent === %[1]s`, quoted(owner)))
		tb.do(chromedp.Click(chromedp.CSS("#push button")))
		tb.wait("the push to be delivered", `document.querySelector('#user-outcome').textContent === 'Delivered to 1 session.'`)
		devices.await("the push", pageWithin, func(d *device) bool { return d.user != users[0] || d.got("A test push from the operator") == 1 })
		tb.shootAdmin("admin-user")
		tb.do(chromedp.EmulateViewport(1280, 900))
		tb.do(chromedp.Click(chromedp.CSS("#kick button")))
		tb.wait("to be asked", `document.querySelector('#ask').open`)
		tb.do(chromedp.Click(chromedp.ID("ask-yes")))
		tb.wait("the session to be closed", `document.querySelector('#user-outcome').textContent === 'Closed 1 session.'`)
		tb.wait("the closure, with its reason", fmt.Sprintf(`[...document.querySelectorAll('#closure-list li')].some((li) =>
			li.textContent.includes('kick') && li.textContent.includes(%s))`, quoted(users[0])))
		tb.do(chromedp.Click(chromedp.ID("user-close")))
	})

	t.Run("a move in progress", func(t *testing.T) {
		tb.t = t
		c.addBackend("b4", "--admin", "127.0.0.1:0")
		tb.wait("the move", fmt.Sprintf(levelIs, `'busy'`)+` && document.querySelector('#findings').textContent.includes('move is in progress')`)
		tb.wait("the change, and whom it took users from", `['b1', 'b2', 'b3'].every((id) => [...document.querySelectorAll('#change-list li:first-child .moves .tag')]
			.some((tag) => tag.textContent === id)) && document.querySelector('#change-list li').textContent.includes('b4 joined')`)
		tb.shootAdmin("admin-move")
		tb.waitFor(40*time.Second, "calm again", fmt.Sprintf(levelIs, `'calm'`))
	})

	t.Run("the page of a backend", func(t *testing.T) {
		tb.t = t
		own := openAdmin(t, browser, c.backends["b4"].admin, fmt.Sprintf(levelIs, `'calm'`))
		own.wait("its sessions", `parseInt(document.querySelector('#t-sessions').textContent) > 50`)
		if name := own.text("h1"); name != "Backend b4" {
			t.Errorf("it is the page of %q", name)
		}
		if others := eval[int](own, `[...document.querySelectorAll('#rows button')].length`); others != 1 {
			t.Errorf("%d buttons to drain; a backend drains nobody but itself", others)
		}
		own.shootAdmin("admin-backend")
		own.wantQuietConsole()
	})

	t.Run("a click drains a backend", func(t *testing.T) {
		tb.t = t
		tb.do(chromedp.EmulateViewport(1280, 900), command(page.BringToFront, cdp.Empty{}))
		tb.do(chromedp.Click(chromedp.CSS(`button[aria-label="Drain b3"]`)))
		tb.wait("to be asked", `document.querySelector('#ask').open`)
		tb.do(chromedp.Click(chromedp.ID("ask-no")))
		tb.wait("not to be asked any more", `!document.querySelector('#ask').open`)
		if digest := c.ring(c.edges[0].admin); digest.size() != 4 {
			t.Errorf("who was not confirmed has left a ring of %d", digest.size())
		}
		tb.do(chromedp.Click(chromedp.CSS(`button[aria-label="Drain b3"]`)))
		tb.wait("to be asked", `document.querySelector('#ask').open`)
		tb.do(chromedp.Click(chromedp.ID("ask-yes")))
		tb.wait("b3 to drain", fmt.Sprintf(rowOf, "b3")+`.textContent.includes('drain')`)
		tb.shootAdmin("admin-drain")
		devices.await("nobody to be at b3", 30*time.Second, func(d *device) bool { return d.held() != "b3" && d.held() != "" || d.user == users[0] })
		tb.wait("b3 to be empty", fmt.Sprintf(rowOf, "b3")+`.textContent.includes('drained')`)
		select {
		case <-c.backends["b3"].done:
			t.Error("the drained process has ended; it is to go on until it is stopped")
		default:
		}
	})

	t.Run("a dead member", func(t *testing.T) {
		tb.t = t
		c.backends["b2"].kill()
		tb.waitFor(40*time.Second, "the page to say so", fmt.Sprintf(levelIs, `'alarm'`)+
			` && document.querySelector('#findings').textContent.includes('b2 is critical')`)
		tb.wait("the row to say so", fmt.Sprintf(rowOf, "b2")+`.textContent.includes('critical')`)
		tb.wait("sessions that ended there", `[...document.querySelectorAll('#closure-list li')].some((li) => li.textContent.includes('as this edge saw it') && li.textContent.includes('b2'))`)
		tb.wait("dial failures", `document.querySelector('#failure-list').textContent.includes('b2')`)
		tb.shootAdmin("admin-dead")
	})
	stop()
	tb.wantQuietConsole()
}

// pushing pushes to users, some each second, until stop is called.
func (c *cluster) pushing(users []string) (stop func()) {
	s := c.sender()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			_, _ = s.Push(ctx, users[i%len(users)], sender.Text("tick")) // some fail while members die
		}
	}()
	return func() { cancel(); <-ended }
}

// waitFor is wait with more patience.
func (tb *tab) waitFor(within time.Duration, what, expression string) {
	tb.t.Helper()
	testkit.Eventually(tb.t, within, func() error {
		if eval[bool](tb, "Boolean("+expression+")") {
			return nil
		}
		return fmt.Errorf("the page shows:\n%s", eval[string](tb, `document.body.innerText`))
	}, what)
}
