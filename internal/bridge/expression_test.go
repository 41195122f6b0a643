package bridge

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestUsers(t *testing.T) {
	headers := map[string][]string{"to": {"carol"}, "many": {"b", "a", "b"}, "bad": {"a\nb"}}
	for _, test := range []struct {
		expression, body string
		users            string // by spaces, sorted; *: everybody
		problem          string
	}{
		{"json:to", `{"to":"alice"}`, "alice", ""},
		{"json:to", `{"to":"a b"}`, "a b", ""},
		{"json:to", `{"to":"é\u00e9"}`, "éé", ""},
		{"json:to", `{"to":12345678901234567890}`, "12345678901234567890", ""},
		{"json:to", `{"to":["bob","alice","bob",7]}`, "7|alice|bob", ""},
		{"json:to.#.id", `{"to":[{"id":"bob"},{"id":"alice"}]}`, "alice|bob", ""},
		{"json:data.user", `{"data":{"user":"alice"}}`, "alice", ""},
		{"header:to", `{}`, "carol", ""},
		{"header:many", ``, "a|b", ""},
		{"json:to,header:to", `{}`, "carol", ""},
		{"json:to,header:to", `{"to":"alice"}`, "alice", ""},
		{"json:to,all", `{"to":[]}`, "*", ""},
		{"json:to,all", `{"to":null}`, "*", ""},
		{"all", `?`, "*", ""},
		{"header:to,json:to", `?`, "carol", ""},
		{"json:to,header:to", `{"to":"alice"`, "", "no JSON"},
		{"json:to,all", `{"to":"alice"`, "", "no JSON"}, // and not everybody
		{"json:to", `{"to":null}`, "", "no such value"},
		{"json:to", `{"to":[]}`, "", "no such value"},
		{"json:to", `{}`, "", "no such value"},
		{"json:to,all", `{"to":1.5}`, "", "string or an integer"}, // and not everybody
		{"json:to", `{"to":{"id":1}}`, "", "string or an integer"},
		{"json:to", `{"to":true}`, "", "string or an integer"},
		{"json:to", `{"to":[["alice"]]}`, "", "in an array"},
		{"json:to", `{"to":["alice",null]}`, "", "in an array"},
		{"json:to", `{"to":""}`, "", "user id"},
		{"json:to", `{"to":["alice",""]}`, "", "user id"},
		{"json:to", "{\"to\":\"\\u0000\"}", "", "control"},
		{"header:bad", ``, "", "control"},
	} {
		e, err := parseExpression(test.expression, []string{"json", "header", "all"})
		if err != nil {
			t.Fatal(err)
		}
		m := &message{body: []byte(test.body), header: func(name string) []string { return headers[name] }}
		users, all, err := e.users(m)
		got := strings.Join(users, "|")
		if all {
			got = "*"
		}
		if test.problem != "" {
			if err == nil || !strings.Contains(err.Error(), test.problem) || users != nil || all {
				t.Errorf("%s of %s: %q, %v; want %q", test.expression, test.body, got, err, test.problem)
			}
		} else if err != nil || got != test.users {
			t.Errorf("%s of %s: %q, %v; want %q", test.expression, test.body, got, err, test.users)
		}
	}
	if !slices.Equal(headers["many"], []string{"b", "a", "b"}) {
		t.Error("the headers were sorted: they are the message's")
	}
}

func TestPayload(t *testing.T) {
	for _, test := range []struct{ expression, body, want string }{
		{"body", `anything`, "anything"},
		{"json:text", `{"text":"a\n\"b\""}`, "a\n\"b\""},
		{"json:data", `{"data": {"n": 1.50} }`, `{"n": 1.50}`},
		{"json:data", `{"data":null}`, `null`},
		{"header:text", ``, "by header"},
		{"json:none,header:none,body", `{}`, "{}"},
		{"json:none", `{}`, ""},
		{"json:text", `{"text":"a"`, ""},
	} {
		e, err := parseExpression(test.expression, []string{"json", "header", "body"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.value(&message{body: []byte(test.body), header: func(name string) []string {
			if name == "text" {
				return []string{"by header", "and another"}
			}
			return nil
		}})
		if string(got) != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s of %s: %q, %v; want %q", test.expression, test.body, got, err, test.want)
		}
	}
}

// Whatever comes, there are users that can be, each once, or an error.
func FuzzUsers(f *testing.F) {
	for _, body := range []string{`{"user":"alice"}`, `{"user":["a",1,"a"]}`, `{"user":[[]]}`, `{"user":`, `[]`, "\xff", `{"user":"\ud800"}`} {
		f.Add([]byte(body))
	}
	e, err := parseExpression("json:user", []string{"json"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		users, all, err := e.users(&message{body: body})
		if all || (err == nil) != (len(users) > 0) {
			t.Fatalf("%q: %q, %v", body, users, err)
		}
		for i, user := range users {
			if len(user) == 0 || len(user) > 256 || slices.Contains(users[i+1:], user) {
				t.Fatalf("%q: %q", body, users)
			}
		}
	})
}

// Positions that come again, at another source or with another body, are other messages; ids fit where members take them.
func TestPositionIDs(t *testing.T) {
	seen := make(map[string]string)
	for _, source := range []string{"a", "ab", strings.Repeat("long", 100)} {
		for _, position := range []string{"1", "18446744073709551615-18446744073709551615"} {
			for _, body := range []string{"", "b", "hi"} {
				id, what := positionID("redis", source, position, []byte(body)), source+" "+position+" "+body
				if before, again := seen[id]; again || len(id) > maxMessageID {
					t.Errorf("%s: %s, as %s", what, id, before)
				}
				seen[id] = what
				if positionID("redis", source, position, []byte(body)) != id {
					t.Errorf("%s has two ids", what)
				}
			}
		}
	}
	long := strings.Repeat("x", maxMessageID)
	if givenID(long) != long || len(givenID(long+"x")) > maxMessageID || givenID(long+"x") == givenID(long+"y") {
		t.Error("long ids are not told apart, or do not fit")
	}
}

// Of two messages to one user, the second never starts before the first has left; messages to other users do not wait.
func TestLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLines()
		type taken struct {
			users []string
			place *place
			left  bool
		}
		var all []*taken
		isFree := func(p *place) bool {
			for _, ahead := range p.ahead {
				select {
				case <-ahead:
				default:
					return false
				}
			}
			return true
		}
		user := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if len(all) > 0 && rapid.Bool().Draw(t, "leave") {
				m := rapid.SampledFrom(all).Draw(t, "who")
				if !m.left && isFree(m.place) {
					l.leave(m.place, m.users)
					m.left = true
				}
			} else {
				users := rapid.SliceOfNDistinct(user, 1, 3, rapid.ID[string]).Draw(t, "users")
				all = append(all, &taken{users: users, place: l.enter(users)})
			}
			for i, m := range all {
				free := true
				for _, before := range all[:i] {
					shares := slices.ContainsFunc(before.users, func(u string) bool { return slices.Contains(m.users, u) })
					free = free && (before.left || !shares)
				}
				if free != isFree(m.place) {
					t.Fatalf("message %d to %q: free %v, want %v", i, m.users, isFree(m.place), free)
				}
			}
		}
		for _, m := range all {
			if !m.left {
				l.leave(m.place, m.users)
			}
		}
		if len(l.last) != 0 {
			t.Fatalf("lines of %d users are left behind", len(l.last))
		}
	})
}
