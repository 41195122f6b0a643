package pushlink

import (
	"runtime"
	"sync"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// runStream is the life of a stream.
func (l *Link) runStream(client pushv1.PushServiceClient) error {
	stream := client.Pipeline(l.ctx)
	_ = stream.Send(nil) // opens the stream; if that fails, Receive says why
	var sending sync.WaitGroup
	sending.Go(func() { l.send(stream) })
	err := l.receive(stream)
	l.cancel()
	sending.Wait()
	_ = stream.CloseResponse() // it has ended
	return err
}

func (l *Link) receive(stream *connect.BidiStreamForClient[pushv1.PushCalls, pushv1.PushAnswers]) error {
	for first := true; ; first = false {
		message, err := stream.Receive()
		if err != nil {
			return err
		}
		if first {
			close(l.accepted)
		}
		l.answered(message.Answers)
	}
}

// send sends what waits and what comes, until the stream ends: not before the member has taken the stream, since a process that hangs would find
// pushes in its buffers later, and could not know how long they have been there.
func (l *Link) send(stream *connect.BidiStreamForClient[pushv1.PushCalls, pushv1.PushAnswers]) {
	select {
	case <-l.accepted:
	case <-l.ctx.Done():
	}
	for {
		select {
		case <-l.arrived:
			runtime.Gosched() // lets those that are about to put something do so: larger batches
		case <-l.ctx.Done():
			_ = stream.CloseRequest() // net/http heeds the end of a stream's context once its request has ended
			return
		}
		for batch := l.take(nil); len(batch) > 0; batch = l.take(nil) {
			message := new(pushv1.PushCalls)
			message.ProtoReflect().SetUnknown(batch) // what is encoded already passes as it is
			if stream.Send(message) != nil {
				return // Receive says why
			}
		}
	}
}
