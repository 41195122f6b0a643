package pushv1

import (
	"errors"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// NewError makes an error of the push service: a Connect code, and a detail that tells errors of one code apart.
func NewError(code connect.Code, detail *ErrorDetail, err error) *connect.Error {
	e := connect.NewError(code, err)
	if proto.Size(detail) == 0 {
		return e // it would tell nothing
	}
	if d, err := connect.NewErrorDetail(detail); err == nil {
		e.AddDetail(d)
	}
	return e
}

// DetailOf returns the typed detail of an error of the push service; empty where it has none.
func DetailOf(err error) *ErrorDetail {
	var e *connect.Error
	if errors.As(err, &e) {
		for _, d := range e.Details() {
			if v, err := d.Value(); err == nil {
				if detail, ok := v.(*ErrorDetail); ok {
					return detail
				}
			}
		}
	}
	return &ErrorDetail{}
}

// ResultError is err as it stands in a list of results; nil for nil.
func ResultError(err error) *Error {
	if err == nil {
		return nil
	}
	out := &Error{Code: connect.CodeOf(err).String(), Message: err.Error(), Reason: DetailOf(err).GetReason()}
	var e *connect.Error
	if errors.As(err, &e) {
		out.Message = e.Message()
	}
	return out
}

// Err is the reverse of ResultError: the error that e stands for; nil for nil.
func (e *Error) Err() error {
	if e == nil {
		return nil
	}
	var code connect.Code
	if code.UnmarshalText([]byte(e.Code)) != nil {
		code = connect.CodeUnknown
	}
	return NewError(code, &ErrorDetail{Reason: e.Reason}, errors.New(e.Message))
}
