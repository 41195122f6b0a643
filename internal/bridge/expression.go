package bridge

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/selvedge/selvedge/internal/identity"
)

// expression finds something in a message: the alternatives in order, of which the first that is present wins.
type expression []alternative

// alternative is one place to look at.
type alternative struct {
	kind string // json, header, all or body
	name string // GJSON path, or the header's name
}

// parseExpression reads KIND:NAME and KIND, several by comma, of the kinds allowed. An empty text is an expression that finds nothing.
func parseExpression(text string, kinds []string) (expression, error) {
	var e expression
	if text == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		kind, name, named := strings.Cut(strings.TrimSpace(part), ":")
		needsName := kind == "json" || kind == "header"
		switch {
		case !slices.Contains(kinds, kind):
			return nil, fmt.Errorf("%q: want %s, several by comma", part, strings.Join(forms(kinds), ", "))
		case needsName && name == "":
			return nil, fmt.Errorf("%q: name what to look for, such as %s:user", part, kind)
		case !needsName && named:
			return nil, fmt.Errorf("%q: %s stands alone", part, kind)
		case len(e) > 0 && !e.isOptional():
			return nil, fmt.Errorf("%q is never looked at: %s before it is always there", part, e[len(e)-1].kind)
		}
		e = append(e, alternative{kind, name})
	}
	return e, nil
}

func forms(kinds []string) []string {
	named := map[string]string{"json": "json:PATH", "header": "header:NAME"}
	list := slices.Clone(kinds)
	for i, kind := range list {
		if form := named[kind]; form != "" {
			list[i] = form
		}
	}
	return list
}

// isOptional tells whether the expression may find nothing.
func (e expression) isOptional() bool {
	last := e[len(e)-1].kind
	return last != "all" && last != "body"
}

var errNotThere = errors.New("no such value in the message")

// users finds the users of m, each once. all is everybody.
func (e expression) users(m *message) (users []string, all bool, err error) {
	for _, a := range e {
		switch a.kind {
		case "all":
			return nil, true, nil
		case "header":
			users = m.header(a.name)
		default:
			var r gjson.Result
			if r, err = m.json(a.name); err == nil {
				users, err = usersOf(r)
			}
			if err != nil {
				return nil, false, fmt.Errorf("%s:%s: %w", a.kind, a.name, err)
			}
		}
		if len(users) > 0 {
			break
		}
	}
	if len(users) == 0 {
		return nil, false, errNotThere
	}
	if len(users) > 1 {
		users = slices.Clone(users)
		slices.Sort(users)
		users = slices.Compact(users)
	}
	for _, user := range users {
		if err := identity.CheckUserID(user); err != nil {
			return nil, false, err
		}
	}
	return users, false, nil
}

// usersOf takes a string or an integer for one user, an array of such for many.
func usersOf(r gjson.Result) ([]string, error) {
	switch {
	case !r.Exists() || r.Type == gjson.Null:
		return nil, nil
	case r.Type == gjson.String:
		return []string{r.Str}, nil
	case r.Type == gjson.Number && !strings.ContainsAny(r.Raw, ".eE"):
		return []string{r.Raw}, nil // as it stands there: an id has more digits than a float
	case !r.IsArray():
		return nil, errors.New("a user is a string or an integer, or an array of such")
	}
	var users []string
	for _, one := range r.Array() {
		user, err := usersOf(one)
		if err != nil || one.IsArray() || len(user) == 0 {
			return nil, errors.New("in an array of users each is a string or an integer")
		}
		users = append(users, user[0])
	}
	return users, nil
}

// value finds one value of m; a JSON value that is no string is taken as it stands there.
func (e expression) value(m *message) (value []byte, err error) {
	for _, a := range e {
		switch a.kind {
		case "body":
			return m.body, nil
		case "header":
			if values := m.header(a.name); len(values) > 0 {
				return []byte(values[0]), nil
			}
		default:
			r, err := m.json(a.name)
			switch {
			case err != nil:
				return nil, err
			case r.Type == gjson.String:
				return []byte(r.Str), nil
			case r.Exists():
				return []byte(r.Raw), nil
			}
		}
	}
	return nil, errNotThere
}
