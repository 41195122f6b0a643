package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// scrape reads a metric from the operator's listener at addr and adds up its values over all labels.
func scrape(ctx context.Context, addr, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("metrics of %s: %s", addr, response.Status)
	}
	return sumMetric(response.Body, name)
}

// sumMetric reads Prometheus' text format. A metric that is not there is an error: it was renamed, and 0 would be a lie.
func sumMetric(text io.Reader, name string) (sum float64, err error) {
	found := false
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum += value
		found = true
	}
	if !found && lines.Err() == nil {
		return 0, fmt.Errorf("no metric %s", name)
	}
	return sum, lines.Err()
}

// freeAddr is an address that nobody listened on a moment ago, for listeners whose addresses must be known before they are there. Should
// another process take it first, the one that should have it does not come up, and says so.
func freeAddr() (string, error) {
	addrs, err := freeAddrs(1)
	return strings.Join(addrs, ""), err
}

// freeAddrs are n of them, no two the same.
func freeAddrs(n int) (addrs []string, err error) {
	var found []net.Listener
	defer func() {
		for _, l := range found {
			_ = l.Close()
		}
	}()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		found = append(found, l)
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
