// Package client is the JavaScript library for clients, selvedge.js, and how it is served: see README.md beside it. An edge serves it at
// [Path], and so does whatever is reached without one.
//
//	mux.HandleFunc("GET "+client.Path, client.Serve)
package client

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"strings"
	"time"
)

// Path is where clients find the library.
const Path = "/.well-known/selvedge/client.js"

//go:embed selvedge.js
var script []byte

// The library as it is and packed, with what tells it from another version.
var (
	packed    = pack(script)
	etag      = tag(script, "")
	etagOfZip = tag(script, "-gzip")
)

// Serve answers a GET or HEAD with the library. A page of any origin may use it: it holds nothing of anybody. Browsers ask each time whether
// it is still the same, so that what is wrong with how clients reconnect can be mended for those who are out there.
func Serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	body := script
	h.Set("ETag", etag)
	if takesGzip(r.Header["Accept-Encoding"]) {
		body = packed
		h.Set("ETag", etagOfZip)
		h.Set("Content-Encoding", "gzip")
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// takesGzip tells whether gzip is among what a client takes, by name and not with a weight of 0.
func takesGzip(accept []string) bool {
	for coding := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		name, weight, _ := strings.Cut(coding, ";")
		_, q, _ := strings.Cut(weight, "=")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			return strings.Trim(q, " 0.") != "" || weight == ""
		}
	}
	return false
}

func pack(text []byte) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(text)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err) // a known level, and memory
	}
	return b.Bytes()
}

func tag(text []byte, of string) string {
	sum := sha256.Sum256(text)
	return `"` + hex.EncodeToString(sum[:8]) + of + `"`
}
