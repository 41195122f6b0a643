package identity

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"
)

const (
	rememberTop = 1 << 16          // verified tokens that are remembered; the longest unused are forgotten. Some 200 bytes each
	jwksBytes   = 1 << 20          // largest key set
	jwksTimeout = 5 * time.Second  // for the issuer to answer
	jwksEvery   = 5 * time.Minute  // between reads of a URL, give or take a tenth
	jwksPoll    = time.Second      // between reads of a file
	jwksRetry   = time.Second      // after the first failure; doubled by each that follows
	jwksRetryTo = time.Minute      // at most
	unknownEach = 10 * time.Second // between reads that unknown key ids cause, whatever their number
	weakestRSA  = 2048             // bits, RFC 7518 section 3.3
)

// keySet is an issuer's public keys. They are read from a file or a URL by run, and nowhere else; the last good ones are kept whatever
// happens at the issuer. Reading them costs one atomic load.
type keySet struct {
	from  string // path or URL
	isURL bool
	http  *http.Client
	log   *zap.Logger

	current atomic.Pointer[keys] // nil: never read

	first chan struct{} // closed once there are keys
	wake  chan struct{} // holds one

	mu     sync.Mutex
	asked  time.Time     // when an unknown key id made it read last
	flight chan struct{} // closed when the read that somebody waits for is over; nil: nobody waits
	reads  uint64
	failed uint64
}

// keys are the set as it was read once, and the tokens that it has verified: those are not believed any more when another set takes its place.
type keys struct {
	keyfunc.Keyfunc
	text  []byte // as read
	count int
	known *lru.Cache[[sha256.Size]byte, Identity] // by the hash of a key expression and a token
}

// newKeySet makes a key set of a path or URL. A file is read at once; a URL is not, since an issuer that is away must not keep an edge from
// starting.
func newKeySet(from string, log *zap.Logger) (*keySet, error) {
	s := &keySet{from: from, log: log, first: make(chan struct{}), wake: make(chan struct{}, 1)}
	if u, err := url.Parse(from); err == nil && u.Scheme != "" && u.Host != "" {
		if u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
			return nil, fmt.Errorf("jwks %q: want https: whoever is on the way could put keys of his own in; http is for this host alone", u.Redacted())
		}
		s.isURL = true
		s.http = &http.Client{Timeout: jwksTimeout, CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 3 || r.URL.Scheme != u.Scheme {
				return errors.New("the issuer redirects too often, or to another scheme")
			}
			return nil
		}}
		return s, nil
	}
	if err := s.read(context.Background()); err != nil {
		return nil, fmt.Errorf("jwks: %w", err)
	}
	return s, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// run reads the keys now and then, and when somebody asks, until ctx ends.
func (s *keySet) run(ctx context.Context) {
	if s.http != nil {
		defer s.http.CloseIdleConnections()
	}
	retry := jwksRetry
	for {
		s.mu.Lock()
		waiting := s.flight
		s.mu.Unlock()
		err := s.read(ctx)
		if ctx.Err() != nil {
			return
		}
		pause := jwksPoll
		if s.isURL {
			pause = jwksEvery - jwksEvery/10 + rand.N(jwksEvery/5)
		}
		if err != nil {
			s.log.Warn("the keys that verify tokens cannot be read; the last ones stay", zap.Error(err), zap.Duration("again_in", retry))
			pause, retry = retry, min(2*retry, jwksRetryTo)
		} else {
			retry = jwksRetry
		}
		s.settle(waiting)

		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// settle tells those who waited for a read that it is over. Who came while it was under way waits for the next one.
func (s *keySet) settle(waiting chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if waiting != nil && s.flight == waiting {
		s.flight = nil
		close(waiting)
	}
}

// refresh has the keys read now, for a key id that they do not hold, and waits until that is done or ctx is over. However many ask, it
// is read once in unknownEach; the others are told false at once.
func (s *keySet) refresh(ctx context.Context) bool {
	s.mu.Lock()
	if s.flight == nil {
		if time.Since(s.asked) < unknownEach {
			s.mu.Unlock()
			return false
		}
		s.asked, s.flight = time.Now(), make(chan struct{})
		select {
		case s.wake <- struct{}{}:
		default: // run is on its way already
		}
	}
	flight := s.flight
	s.mu.Unlock()
	select {
	case <-flight:
		return true
	case <-ctx.Done():
		return false
	}
}

// read reads and checks the keys, and puts them in place where they differ from what is there.
func (s *keySet) read(ctx context.Context) error {
	text, err := s.fetch(ctx)
	var next *keys
	if err == nil {
		if last := s.current.Load(); last != nil && bytes.Equal(last.text, text) {
			next = last
		} else {
			next, err = parseKeys(text)
		}
	}
	s.mu.Lock()
	if s.reads++; err != nil {
		s.failed++
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	last := s.current.Swap(next)
	if last == nil {
		close(s.first)
	}
	if last != next {
		s.log.Info("read the keys that verify tokens", zap.Int("keys", next.count))
	}
	return nil
}

func (s *keySet) fetch(ctx context.Context) ([]byte, error) {
	if !s.isURL {
		f, err := os.Open(s.from)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return limited(f)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.from, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	answer, err := s.http.Do(r)
	if err != nil {
		if cause := (*url.Error)(nil); errors.As(err, &cause) {
			err = cause.Err // without the URL, which may hold a secret
		}
		return nil, fmt.Errorf("the issuer cannot be reached: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the issuer answers %d", answer.StatusCode)
	}
	return limited(answer.Body)
}

func limited(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, jwksBytes+1))
	if err == nil && len(text) > jwksBytes {
		err = fmt.Errorf("the key set is longer than %d bytes", jwksBytes)
	}
	return text, err
}

// parseKeys takes the public keys for signatures out of a JWK set. Others are left out: shared secrets, since whoever verifies with one can
// sign with it too, keys for encryption, and keys of kinds or sizes that nobody should use.
func parseKeys(text []byte) (*keys, error) {
	var set jwkset.JWKSMarshal
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf(`no JWK set, like {"keys": [...]}: %w`, err)
	}
	store := jwkset.NewMemoryStorage()
	count := 0
	for _, one := range set.Keys {
		if one.KTY == jwkset.KtyOct || one.USE == jwkset.UseEnc {
			continue
		}
		key, err := jwkset.NewJWKFromMarshal(one, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil {
			continue // one that we cannot read must not take the others away
		}
		if weak, ok := key.Key().(*rsa.PublicKey); ok && weak.N.BitLen() < weakestRSA {
			continue
		}
		if err := store.KeyWrite(context.Background(), key); err != nil {
			return nil, err
		}
		count++
	}
	if count == 0 {
		return nil, errors.New("the key set holds no public key for signatures")
	}
	find, err := keyfunc.New(keyfunc.Options{Storage: store})
	if err != nil {
		return nil, err
	}
	known, err := lru.New[[sha256.Size]byte, Identity](rememberTop)
	if err != nil {
		return nil, err
	}
	return &keys{Keyfunc: find, text: text, count: count, known: known}, nil
}
