package identity

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	leastSecret = 32 // bytes; as long as what the MAC brings forth
	mostSecrets = 8  // two are enough to change them
	secretsPoll = 5 * time.Second
)

// Secrets are what the edges and the members of a service share: edges sign requests and mint tickets with the first, members verify
// with any. To change them without a gap, add the new one as the last line everywhere, then put it first, then drop the old one.
type Secrets struct {
	path string
	poll time.Duration             // how often the file is looked at anew
	text []byte                    // of the file when it was read first
	list atomic.Pointer[[]*secret] // never empty
}

// secret is one line. What is signed and what is minted use keys of their own, so that neither passes for the other.
type secret struct {
	id      keyID
	sign    *mac
	tickets *mac
}

// keyID names a secret to those who have it, and tells others nothing of it.
type keyID [4]byte

func (id keyID) String() string { return hex.EncodeToString(id[:]) }

// ReadSecrets reads a file: on each line at least 32 random bytes, in base64 or hex; blank lines and those that begin with # count for
// nothing. Errors name the line and repeat nothing of it.
func ReadSecrets(path string) (*Secrets, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	list, err := parseSecrets(path, text)
	if err != nil {
		return nil, err
	}
	s := &Secrets{path: path, poll: secretsPoll, text: text}
	s.list.Store(&list)
	return s, nil
}

// Follow takes over what the file says from now on, until ctx ends: a change counts within 5 s. changed is told of each change: nil,
// or why it cannot be used; then the secrets that there were stay in force.
func (s *Secrets) Follow(ctx context.Context, changed func(error)) {
	last := s.text // a change before this call counts, too
	poll := time.NewTicker(s.poll)
	defer poll.Stop()
	for failed := ""; ; {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
		text, err := os.ReadFile(s.path)
		if err == nil && bytes.Equal(text, last) {
			continue
		}
		var list []*secret
		if err == nil {
			list, err = parseSecrets(s.path, text)
		}
		if err != nil {
			if err.Error() != failed { // once is enough
				failed = err.Error()
				changed(err)
			}
			continue
		}
		last, failed = text, ""
		s.list.Store(&list)
		changed(nil)
	}
}

// first signs.
func (s *Secrets) first() *secret { return (*s.list.Load())[0] }

// named returns the secret of that id; nil: there is none.
func (s *Secrets) named(id keyID) *secret {
	for _, one := range *s.list.Load() {
		if one.id == id {
			return one
		}
	}
	return nil
}

func parseSecrets(path string, text []byte) ([]*secret, error) {
	var list []*secret
	lines := make(map[keyID]int)
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		one, err := newSecret(line)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		if before := lines[one.id]; before > 0 {
			return nil, fmt.Errorf("%s:%d: the secret of line %d again; keep one of them", path, n, before)
		}
		lines[one.id] = n
		list = append(list, one)
	}
	switch {
	case len(list) == 0:
		return nil, fmt.Errorf("%s: holds no secret; `openssl rand -base64 32 > %[1]s` makes one", path)
	case len(list) > mostSecrets:
		return nil, fmt.Errorf("%s: holds %d secrets, at most %d are allowed; two are enough to change them", path, len(list), mostSecrets)
	}
	return list, nil
}

func newSecret(line string) (*secret, error) {
	raw, err := hex.DecodeString(line)
	if err != nil {
		plain := strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(line), "=")
		raw, err = base64.RawStdEncoding.DecodeString(plain)
	}
	if err != nil {
		return nil, errors.New("this is neither base64 nor hex; `openssl rand -base64 32` makes a secret")
	}
	if len(raw) < leastSecret {
		return nil, fmt.Errorf("this secret has %d bytes, at least %d random ones are wanted; `openssl rand -base64 32` makes them", len(raw), leastSecret)
	}
	from := newMAC(raw)
	derived := func(use string) []byte { return from.sum(nil, "selvedge", use) }
	one := &secret{sign: newMAC(derived("signature v1")), tickets: newMAC(derived("ticket v1"))}
	copy(one.id[:], derived("key id v1"))
	return one, nil
}

// mac computes HMAC-SHA256 with one key. It keeps what it has computed of the key, which is half of the work for a short message.
type mac struct{ pool sync.Pool }

type macState struct {
	hash hash.Hash
	text []byte
}

func newMAC(key []byte) *mac {
	return &mac{sync.Pool{New: func() any { return &macState{hash: hmac.New(sha256.New, key)} }}}
}

// sum appends the MAC of the fields to to. Each field goes in behind its length, so that no two lists of fields read the same.
func (m *mac) sum(to []byte, fields ...string) []byte {
	s := m.pool.Get().(*macState)
	defer m.pool.Put(s)
	s.text = s.text[:0]
	for _, f := range fields {
		s.text = binary.BigEndian.AppendUint32(s.text, uint32(len(f)))
		s.text = append(s.text, f...)
	}
	s.hash.Reset()
	s.hash.Write(s.text)
	return s.hash.Sum(to)
}

// fits tells whether sum is the MAC of the fields, and takes as long whatever it is.
func (m *mac) fits(sum []byte, fields ...string) bool {
	var room [sha256.Size]byte
	return hmac.Equal(sum, m.sum(room[:0], fields...))
}
