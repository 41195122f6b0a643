package identity

import (
	"errors"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// FuzzToken: no request makes it panic, nobody gets in without a signature, and what is found is hidden.
func FuzzToken(f *testing.F) {
	is := newIssuer(f)
	good := sign(f, jwt.SigningMethodES256, "e", is.ec, claims())
	f.Add("access_token="+good, "Bearer "+good, "sid="+good, "bearer, "+good)
	f.Add("access%5ftoken=x&a;b", "bearer", "sid", "bearer,")
	f.Add("&access_token", "Basic eA==", `sid="a.b.c"`, ",bearer, ,bearer,x")
	f.Add("access_token=eyJhbGciOiJub25lIn0.e30.", "Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6ImUifQ.e30.AA", "sid=..", "bearer, a.b.c")
	v := verifier(f, is.public(f), func(c *AuthConfig) { c.Token = "query:access_token,header,cookie:sid,protocol" })
	key := jwtKey(f, "jwt:sub,jwt:aud")
	f.Fuzz(func(t *testing.T, query, authorization, cookie, protocol string) {
		fields := map[string][]string{"Authorization": {authorization}, "Cookie": {cookie}, "Sec-Websocket-Protocol": {protocol}}
		head := RequestHead{RawQuery: query, Header: func(name string) []string { return fields[name] }}
		who, err := v.Identify(key, &head)
		all := query + authorization + cookie + protocol
		if err == nil && (who.User != "alice" || !strings.Contains(unescaped(all), good[:len(good)-1])) {
			t.Fatalf("%q: %v", all, who)
		}
		if err != nil && errors.As(err, new(*Error)) == false {
			t.Fatalf("%q: %v", all, err)
		}
		hidden := head
		hidden.RawQuery = v.HideQuery(query)
		rest, _ := v.HideProtocols(fields["Sec-Websocket-Protocol"])
		hidden.Header = func(name string) []string { return map[string][]string{"Sec-Websocket-Protocol": rest}[name] }
		if _, err := v.Identify(key, &hidden); err == nil {
			t.Fatalf("%q: a token is left in %q, %q", all, hidden.RawQuery, rest)
		}
	})
}

func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if u, ok := unescape(s[i:min(i+3, len(s))], false); ok {
				b.WriteString(u)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
