package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/selvedge/selvedge/internal/testkit"
)

const (
	pageWithin  = 10 * time.Second // for whatever the page is awaited to show; two slow cores under -race are the worst case
	browserCall = 20 * time.Second // one command to the browser
)

// JavaScript that is true once the page shows what is awaited. entry takes the kind and a part of the text; the newest counts.
const (
	isConnected = `document.querySelector('#state').dataset.state === 'open' &&
		/\w/.test(document.querySelector('#backend').textContent)`
	isEntry   = `[...document.querySelectorAll('#messages > li[data-kind=%s]')].some((li) => li.textContent.includes(%s))`
	outcomeOf = `[...document.querySelectorAll('#messages > li[data-kind=mine]')].findLast((li) => li.textContent.includes(%s))?.dataset.outcome`
)

// TestChatPage drives the chat page of `selvedge dev` as people do: by keyboard, in several tabs of a real browser.
func TestChatPage(t *testing.T) {
	dev := startDev(t)
	browser := startBrowser(t)

	t.Run("a message finds its reader and the sender's other tab", func(t *testing.T) {
		alice, twin, bob := openTab(t, browser, dev, "alice"), openTab(t, browser, dev, "alice"), openTab(t, browser, dev, "bob")
		if me := alice.text("#me"); me != "alice" {
			t.Errorf("#me shows %q, want alice", me)
		}
		if a, b := alice.text("#backend"), twin.text("#backend"); a != b {
			t.Errorf("two tabs of one user are held by %s and %s, want one backend", a, b)
		}

		alice.say("bob", "hi <b>bob</b>")
		bob.waitEntry("theirs", "hi <b>bob</b>")
		twin.waitEntry("other-tab", "hi <b>bob</b>")
		alice.waitOutcome("hi <b>bob</b>", "DELIVERED")
		alice.waitEntry("mine", "Delivered to 1 session")
		if n := eval[int](bob, `document.querySelectorAll('#messages b').length`); n != 0 {
			t.Errorf("a message put %d elements of its own into the page, want none", n)
		}

		bob.say("alice", "two places at once")
		alice.waitEntry("theirs", "two places at once")
		twin.waitEntry("theirs", "two places at once")
		bob.waitEntry("mine", "Delivered to 2 sessions")

		alice.say("bob, nobody-here", "to several")
		bob.waitEntry("theirs", "to several")
		alice.waitEntry("mine", "nobody-here offline")
		alice.say("nobody-here", "hello?")
		alice.waitOutcome("hello?", "OFFLINE")

		alice.wantQuietConsole()
		twin.wantQuietConsole()
		bob.wantQuietConsole()
	})

	t.Run("a push from outside is shown as it was sent", func(t *testing.T) {
		fern := openTab(t, browser, dev, "fern")
		for _, text := range []string{"hi", `{"from":1,"anything":["at all"]}`, "<script>alert(1)</script>"} {
			dev.push(t, "Push", map[string]any{"user": "fern", "text": text})
			fern.waitEntry("notice", text)
		}
		dev.push(t, "Push", map[string]any{"user": "fern", "data": []byte{0, 1, 2}}) // []byte: base64 in JSON
		fern.waitEntry("notice", "Binary, 3 bytes")
		fern.wantQuietConsole()
	})

	t.Run("who is kicked is told so and stays out until they ask", func(t *testing.T) {
		gwen := openTab(t, browser, dev, "gwen")
		dev.push(t, "Disconnect", map[string]any{"user": "gwen", "code": 1008, "reason": "kicked"})
		gwen.wait("refused, with the reason", `document.querySelector('#state').dataset.state === 'closed' &&
			document.querySelector('#state').textContent.includes('kicked (1008)')`)
		gwen.do(chromedp.Click(chromedp.ID("retry")))
		gwen.wait("connected again", isConnected)
		gwen.wantQuietConsole()
	})

	t.Run("who is told to come back comes back at once", func(t *testing.T) {
		// The push service sends 1012 to nobody, and no member comes or goes here: the page gets the close event from the test.
		hugo := openTab(t, browser, dev, "hugo", command(page.AddScriptToEvaluateOnNewDocument,
			page.AddScriptToEvaluateOnNewDocumentParams{Source: `window.WebSocket = class extends WebSocket {
				constructor(...args) { super(...args); window.newest = this; }
			}`}))
		session := hugo.text("#session")
		hugo.do(chromedp.Evaluate[chromedp.Void](`window.states = []; new MutationObserver(() => states.push(document.body.dataset.state))
			.observe(document.body, { attributeFilter: ['data-state'] })`))
		hugo.do(chromedp.Evaluate[chromedp.Void](`newest.onclose(new CloseEvent('close', { code: 1012, reason: 'moved' }))`))
		hugo.wait("another session", fmt.Sprintf(`%s && document.querySelector('#session').textContent !== %s &&
			document.querySelector('#session').textContent !== ''`, isConnected, quoted(session)))
		if states := slices.Compact(eval[[]string](hugo, `states`)); !slices.Equal(states, []string{"moved", "open"}) {
			t.Errorf("the page went through %q, want moved, then open", states)
		}
		hugo.waitEntry("event", "Back on")
		hugo.wantQuietConsole()
	})

	t.Run("a visitor without a name is asked for one", func(t *testing.T) {
		visitor := openTab(t, browser, dev, "")
		suggested := eval[string](visitor, `document.querySelector('#name').value`)
		visitor.do(chromedp.Click(chromedp.ID("enter")))
		visitor.wait("connected", isConnected)
		if me := visitor.text("#me"); me != suggested || me == "" {
			t.Errorf("the page says that the visitor is %q, want the suggested name %q", me, suggested)
		}
		visitor.do(chromedp.Reload())
		visitor.wait("connected after a reload", isConnected)
		if me := visitor.text("#me"); me != suggested {
			t.Errorf("after a reload the visitor is %q, want %q still", me, suggested)
		}
		visitor.wantQuietConsole()
	})

	t.Run("it fits a phone, half a screen and a screen", func(t *testing.T) {
		iris, jack := openTab(t, browser, dev, "iris"), openTab(t, browser, dev, "jack")
		jack.shoot("empty")
		iris.say("jack, nobody-here", "Did the cloth arrive?")
		jack.waitEntry("theirs", "Did the cloth arrive?")
		jack.say("iris", "This morning. Four metres, indigo, with the red line in it.")
		iris.waitEntry("theirs", "This morning")
		iris.say("jack", strings.Repeat("unbroken", 60))
		iris.waitEntry("mine", "Delivered to 1 session")
		dev.push(t, "Push", map[string]any{"user": "iris", "text": "Order 4711 has left the mill."})
		iris.waitEntry("notice", "4711")
		iris.shoot("chat")
		iris.wantQuietConsole()
		jack.wantQuietConsole()
	})
}

// push calls a method of the push service on the edge's admin port.
func (dev *devServer) push(t *testing.T, method string, request map[string]any) {
	t.Helper()
	payload, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: pageWithin}
	answer, err := client.Post(dev.AdminURL+"/selvedge.push.v1.PushService/"+method, "application/json", bytes.NewReader(payload))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	defer client.CloseIdleConnections()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s: %s", method, payload, answer.Status, text)
	}
}

// startBrowser starts a headless Chromium with an empty profile, which ends with the test. It talks to nobody but the page.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("this test needs chromium on PATH, which `make test` installs: %v", err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(chromium),
		chromedp.NoSandbox, // it needs user namespaces, which containers often lack; the only page here is our own
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("hide-scrollbars", true),
	)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	browser, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(browser); err != nil { // starts it; without a deadline, which would become the browser's
		t.Fatalf("start %s: %v", chromium, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(browser, browserCall)
		defer cancel()
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("stop the browser: %v", err)
		}
	})
	return browser
}

// tab is one tab of the browser, with the chat page in it where nothing else is said. Its methods fail the test where the page does not do as asked.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex
	errors []string // what the console and uncaught exceptions said
}

// openTab opens the page as user and waits until it is connected; with no user, until it asks for a name. The steps of before are
// done before the page is there.
func openTab(t *testing.T, browser context.Context, dev *devServer, user string, before ...chromedp.Action[chromedp.Void]) *tab {
	t.Helper()
	address, awaited := dev.URL+"/", `document.querySelector('#ask')?.open`
	if user != "" {
		address, awaited = address+"?"+url.Values{"user": {user}}.Encode(), isConnected
	}
	tb := newTab(t, browser, address, before...)
	tb.wait("the page for "+user, awaited)
	return tb
}

// newTab opens an address.
func newTab(t *testing.T, browser context.Context, address string, before ...chromedp.Action[chromedp.Void]) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	tb := &tab{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil { // opens the tab, whose life this context is
		t.Fatalf("open a tab: %v", err)
	}
	if err := chromedp.Listen(ctx, tb.listen); err != nil {
		t.Fatal(err)
	}
	tb.do(command(log.Enable, cdp.Empty{}), chromedp.EmulateViewport(640, 800))
	tb.do(before...)
	tb.do(chromedp.Navigate(address))
	return tb
}

func (tb *tab) listen(event any) {
	var said string
	switch event := event.(type) {
	case *log.EventEntryAdded:
		if event.Entry.Level != log.EntryLevelError {
			return
		}
		said = event.Entry.Text + " " + event.Entry.URL
	case *runtime.EventConsoleAPICalled:
		if event.Type != runtime.ConsoleAPICalledTypeError {
			return
		}
		said = "console.error"
	case *runtime.EventExceptionThrown:
		said = fmt.Sprintf("%s at %s:%d", event.ExceptionDetails.Text, event.ExceptionDetails.URL, event.ExceptionDetails.LineNumber)
	default:
		return
	}
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.errors = append(tb.errors, said)
}

func (tb *tab) forgetErrors() {
	tb.mu.Lock()
	defer tb.mu.Unlock()
	tb.errors = nil
}

func (tb *tab) wantQuietConsole() {
	tb.t.Helper()
	tb.mu.Lock()
	defer tb.mu.Unlock()
	if len(tb.errors) > 0 {
		tb.t.Errorf("the console says:\n%s", strings.Join(tb.errors, "\n"))
	}
}

func (tb *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, browserCall)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		tb.t.Fatal(err)
	}
}

// command makes a step of a protocol command whose answer does not matter.
func command[P, R any](c cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, c, params)
		return err
	})
}

// eval returns what a JavaScript expression is worth in the page.
func eval[T any](tb *tab, expression string) T {
	tb.t.Helper()
	ctx, cancel := context.WithTimeout(tb.ctx, browserCall)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		tb.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

func (tb *tab) text(selector string) string {
	tb.t.Helper()
	return eval[string](tb, fmt.Sprintf(`document.querySelector(%s).textContent`, quoted(selector)))
}

// wait polls from here, since the page's own timers and animation frames rest while another tab is in front.
func (tb *tab) wait(what, expression string) {
	tb.t.Helper()
	testkit.Eventually(tb.t, pageWithin, func() error {
		if eval[bool](tb, "Boolean("+expression+")") {
			return nil
		}
		return fmt.Errorf("the page shows:\n%s", eval[string](tb, `document.body.innerText`))
	}, what)
}

func (tb *tab) waitEntry(kind, text string) {
	tb.t.Helper()
	tb.wait(fmt.Sprintf("an entry of kind %s with %q", kind, text), fmt.Sprintf(isEntry, kind, quoted(text)))
}

func (tb *tab) waitOutcome(text, outcome string) {
	tb.t.Helper()
	tb.wait(fmt.Sprintf("%q to be %s", text, outcome), fmt.Sprintf(outcomeOf+" === %s", quoted(text), quoted(outcome)))
}

// say sends a message by keyboard alone: Enter goes from the receivers to the text, and from the text to everybody.
func (tb *tab) say(to, text string) {
	tb.t.Helper()
	tb.do(
		command(page.BringToFront, cdp.Empty{}),                                    // keys go to the tab in front
		chromedp.Evaluate[chromedp.Void](`document.querySelector('#to').select()`), // what is typed takes the place of what was there
		chromedp.KeyEvent(to), enter(),
		chromedp.KeyEvent(text), enter(),
	)
	tb.waitEntry("mine", text)
}

func enter() chromedp.Action[chromedp.Void] { return press("Enter", "Enter", 13) }

// press presses a key without the character that chromedp.KeyEvent sends after it: where a page has moved the focus on keydown,
// that would go into the next field, which no real keyboard does.
func press(key, code string, number int64) chromedp.Action[chromedp.Void] {
	event := func(kind input.DispatchKeyEventType) chromedp.Action[chromedp.Void] {
		return command(input.DispatchKeyEvent, input.DispatchKeyEventParams{
			Type: kind, Key: key, Code: code, WindowsVirtualKeyCode: number, NativeVirtualKeyCode: number,
		})
	}
	return chromedp.Steps(event(input.DispatchKeyEventTypeRawKeyDown), event(input.DispatchKeyEventTypeKeyUp))
}

// shoot keeps pictures of the page at three widths, light and dark, and checks that nothing is wider than its window.
func (tb *tab) shoot(name string) {
	tb.t.Helper()
	dir := artifacts(tb.t)
	for _, size := range []struct{ width, height int64 }{{360, 740}, {640, 800}, {1280, 800}} {
		for _, scheme := range []string{"light", "dark"} {
			tb.do(
				command(page.BringToFront, cdp.Empty{}), // a tab behind paints nothing
				chromedp.EmulateViewport(size.width, size.height),
				command(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
					{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
				}}),
			)
			tb.wait(fmt.Sprintf("the page %d px wide", size.width), fmt.Sprintf(`innerWidth === %d`, size.width))
			for _, box := range []string{"document.documentElement", "document.querySelector('#log')", "document.querySelector('header')"} {
				if over := eval[int](tb, fmt.Sprintf(`%s.scrollWidth - %[1]s.clientWidth`, box)); over > 0 {
					tb.t.Errorf("%s at %d px: %s scrolls sideways by %d px, want not at all", name, size.width, box, over)
				}
			}
			ctx, cancel := context.WithTimeout(tb.ctx, browserCall)
			picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
			cancel()
			if err != nil {
				tb.t.Fatal(err)
			}
			file := filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", name, size.width, scheme))
			if err := os.WriteFile(file, picture, 0o644); err != nil {
				tb.t.Fatal(err)
			}
		}
	}
	tb.t.Logf("pictures of %s are in %s", name, dir)
}

// artifacts is where pictures are kept: SELVEDGE_ARTIFACTS, else bin/artifacts of the checkout.
func artifacts(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SELVEDGE_ARTIFACTS")
	if dir == "" {
		dir = filepath.Join("..", "..", "bin", "artifacts")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// quoted makes a JavaScript string of text.
func quoted(text string) string {
	literal, err := json.Marshal(text)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(literal)
}
