package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
)

// pushFlags are those of `selvedge push`.
type pushFlags struct {
	reach
	to        []string
	toFile    string
	all       bool
	text      string
	file      string
	binary    bool
	messageID string
	timeout   time.Duration
}

func newPush(g *global) *cobra.Command {
	var f pushFlags
	cmd := &cobra.Command{
		Use:   "push",
		Short: "Push a message to users by id, wherever they are",
		Long: "Push a message to every session of the users named, and say what became of it.\n" +
			"Exits with 0 when somebody was reached, 3 when nobody was, 1 when the outcome is not certain.",
		Example: `  selvedge push --to alice --text "your order has left" --via http://127.0.0.1:8081
  date | selvedge push --to alice,bob --consul 127.0.0.1:8500
  selvedge push --all --text "back in five minutes" --via http://127.0.0.1:8081`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd, g)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.to, "to", nil, "`USERS` to push to, separated by commas")
	flags.StringVar(&f.toFile, "to-file", "", "`FILE` with one user id per line (-: standard input)")
	flags.BoolVar(&f.all, "all", false, "push to every session of the service")
	flags.StringVar(&f.text, "text", "", "the `MESSAGE` (default: standard input)")
	flags.StringVar(&f.file, "file", "", "`FILE` that holds the message")
	flags.BoolVar(&f.binary, "binary", false, "send a binary message instead of text")
	flags.StringVar(&f.messageID, "message-id", "", "`ID` that no session gets twice (default: a new one)")
	flags.DurationVar(&f.timeout, "timeout", 5*time.Second, "how long to try, for each 5,000 users")
	f.bind(flags)
	return cmd
}

func (f *pushFlags) run(cmd *cobra.Command, g *global) error {
	users, err := f.users(cmd.InOrStdin())
	if err != nil {
		return usage(err)
	}
	message, err := f.message(cmd)
	if err != nil {
		return usage(err)
	}
	return f.call(cmd, g, func(s *sender.Sender, out *printer) error {
		if f.all {
			ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
			defer cancel()
			return broadcast(ctx, s, message, out)
		}
		return f.push(cmd.Context(), s, users, message, out, newProgress(cmd.ErrOrStderr(), len(users)))
	})
}

// pushBatch is how many users a push is for at once: a hundred thousand take some seconds, and the bar moves on twenty times.
const pushBatch = 5000

// push pushes to the users a batch after the other, and prints what became of each.
func (f *pushFlags) push(ctx context.Context, s *sender.Sender, users []string, m sender.Message, out *printer, bar *progress) error {
	var sum pushTally
	defer bar.clear()
	for batch := range slices.Chunk(users, pushBatch) {
		bar.at(sum.users)
		results, err := f.pushBatch(ctx, s, batch, m)
		if err != nil {
			return err
		}
		if len(users) > 1 {
			m.ID = results[0].MessageID // one for all, with which all can be repeated
		}
		bar.clear()
		for _, r := range results {
			if err := sum.print(r, out); err != nil {
				return err
			}
		}
	}
	return sum.err()
}

func (f *pushFlags) pushBatch(ctx context.Context, s *sender.Sender, users []string, m sender.Message) ([]sender.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	if len(users) == 1 {
		result, _ := s.Push(ctx, users[0], m) // the error stands in the result
		return []sender.Result{result}, nil
	}
	return s.PushMany(ctx, users, m)
}

// pushLine is one user's result as it is printed.
type pushLine struct {
	User      string `json:"user"`
	Outcome   string `json:"outcome,omitempty"`
	Sessions  int    `json:"sessions"`
	MessageID string `json:"message_id,omitempty"`
	Error     string `json:"error,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// pushTally adds up what became of pushes.
type pushTally struct {
	users, reached, failed int
	failure                error // the first
}

// print prints the line of one user.
func (t *pushTally) print(r sender.Result, out *printer) error {
	t.users++
	line := pushLine{User: r.User, Sessions: r.Sessions, MessageID: r.MessageID, Outcome: "OFFLINE"}
	text := r.User + ": offline"
	switch {
	case r.Err != nil:
		t.failed++
		t.failure = cmp.Or(t.failure, r.Err)
		line.Outcome, line.Error = connect.CodeOf(r.Err).String(), r.Err.Error()
		if reason := pushv1.DetailOf(r.Err).GetReason(); reason != pushv1.Reason_REASON_UNSPECIFIED {
			line.Reason = reason.String()
		}
		text = r.User + ": not certain: " + r.Err.Error()
	case r.Sessions > 0:
		t.reached++
		line.Outcome = "DELIVERED"
		text = fmt.Sprintf("%s: delivered to %s", r.User, count(r.Sessions, "session"))
	}
	return out.line(text, line)
}

// err says how all of it ended. The exit code is that of the worst: an error, then nobody reached.
func (t *pushTally) err() error {
	switch {
	case t.failed > 0:
		return &countedError{fmt.Sprintf("%d of %d pushes failed", t.failed, t.users), t.failure}
	case t.reached == 0:
		return &exitError{exitNobody, errors.New("nobody was reached")}
	}
	return nil
}

// countedError stands for errors that have been printed, the first of which tells what to do.
type countedError struct {
	text  string
	first error
}

func (e *countedError) Error() string { return e.text }
func (e *countedError) Unwrap() error { return e.first }

func broadcast(ctx context.Context, s *sender.Sender, m sender.Message, out *printer) error {
	sessions, unanswered, err := s.Broadcast(ctx, m)
	if err != nil {
		return err
	}
	text := "delivered to " + count(sessions, "session")
	if len(unanswered) > 0 {
		text += "; no answer from " + strings.Join(unanswered, ", ")
	}
	if err := out.line(text, map[string]any{"sessions": sessions, "unanswered": unanswered}); err != nil {
		return err
	}
	switch {
	case len(unanswered) > 0:
		return fmt.Errorf("%s did not answer", count(len(unanswered), "member"))
	case sessions == 0:
		return &exitError{exitNobody, errors.New("nobody was reached")}
	}
	return nil
}

// users are those that --to and --to-file name.
func (f *pushFlags) users(stdin io.Reader) ([]string, error) {
	users := f.to
	if f.toFile != "" {
		in := stdin
		if f.toFile != "-" {
			file, err := os.Open(f.toFile)
			if err != nil {
				return nil, fmt.Errorf("--to-file: %w", err)
			}
			defer file.Close()
			in = file
		}
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			if user := strings.TrimSuffix(lines.Text(), "\r"); user != "" {
				users = append(users, user)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("--to-file: %w", err)
		}
	}
	switch {
	case f.all && len(users) > 0:
		return nil, errors.New("--all is everybody; leave --to and --to-file out")
	case !f.all && len(users) == 0:
		return nil, errors.New("nobody to push to; give --to USER, --to-file FILE or --all")
	}
	return users, nil
}

func (f *pushFlags) message(cmd *cobra.Command) (sender.Message, error) {
	m := sender.Message{Data: []byte(f.text), Binary: f.binary, ID: f.messageID}
	var err error
	switch {
	case cmd.Flags().Changed("text") && f.file != "":
		return m, errors.New("both --text and --file are given; choose one")
	case cmd.Flags().Changed("text"):
	case f.file != "":
		m.Data, err = os.ReadFile(f.file)
	case f.toFile == "-":
		return m, errors.New("standard input holds the users; give the message with --text or --file")
	default:
		m.Data, err = io.ReadAll(cmd.InOrStdin())
	}
	return m, err
}
