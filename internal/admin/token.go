package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
)

// CheckExposure refuses a listener that strangers could reach and that asks for no token: one that is not bound to a loopback
// address. needs names the setting that would mend it. An empty addr is no listener.
func CheckExposure(addr, token, needs string) error {
	if addr == "" || token != "" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q is no host:port: %w", addr, err)
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s can be reached from outside and asks for no token; set %s, or listen on 127.0.0.1", addr, needs)
}

// RequireToken answers 401 to requests that do not show token as a bearer token; with an empty token it lets everything pass.
func RequireToken(token string, next http.Handler) http.Handler {
	return RequireTokenOf(func() string { return token }, next)
}

// RequireTokenOf is [RequireToken] with a token that may become another one: each request is held against what token returns then.
func RequireTokenOf(token func() string, next http.Handler) http.Handler {
	if token == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := token()
		if now == "" {
			next.ServeHTTP(w, r)
			return
		}
		want := sha256.Sum256([]byte(now)) // hashed, so that the comparison tells nothing of the length either
		scheme, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(shown))
		if !strings.EqualFold(scheme, "bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="selvedge"`)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintln(w, `{"code":"unauthenticated","message":"wrong or missing token; send Authorization: Bearer TOKEN"}`)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ReadToken reads a token from a file, without the white space around it; an empty path is no token.
func ReadToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("token file %s is empty; put a token of your choice into it", path)
	}
	return token, nil
}
