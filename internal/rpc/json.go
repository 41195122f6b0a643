package rpc

import (
	"bytes"
	"encoding/json"
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// JSON makes a handler speak JSON with the field names of the proto files, message_id rather than messageId, in requests and
// answers alike, and without the spaces that protojson sprinkles at random.
func JSON() connect.HandlerOption { return connect.WithCodec(jsonCodec{}) }

type jsonCodec struct{}

func (jsonCodec) Name() string { return "json" }

func (jsonCodec) Marshal(message any) ([]byte, error) {
	m, ok := message.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is no protocol buffer message", message)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	err = json.Compact(&compact, text)
	return compact.Bytes(), err
}

func (jsonCodec) Unmarshal(text []byte, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no protocol buffer message", message)
	}
	if len(text) == 0 {
		return fmt.Errorf("an empty body is no JSON; send at least {}")
	}
	// Fields of newer releases are let pass, so that releases can be mixed during an upgrade.
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, m)
}
