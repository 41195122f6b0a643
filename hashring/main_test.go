package hashring

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

func TestMain(m *testing.M) {
	// A check builds rings of tens of thousands of points, ten times slower with -race; -rapid.checks on the command
	// line still has the last word.
	if err := flag.Set("rapid.checks", "30"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
