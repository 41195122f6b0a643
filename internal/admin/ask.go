package admin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// longestAnswer bounds what of an answer is read, in bytes.
const longestAnswer = 1 << 10

// Ask asks the listener at addr, host:port or a URL, for path, which is /readyz or /healthz, and returns what it says. An answer other
// than 200 is an error with what is the matter.
func Ask(ctx context.Context, addr, path string) (string, error) {
	url := strings.TrimSuffix(addr, "/") + path
	if !strings.Contains(addr, "://") {
		url = "http://" + url
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, longestAnswer))
	if err != nil {
		return "", err
	}
	said := strings.TrimSpace(string(text))
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", url, answer.Status, said)
	}
	return said, nil
}
