package identity

import "errors"

// CheckUserID returns nil where id is a user id: 1 to 256 bytes of valid UTF-8 without control characters. The error says what is
// wrong and does not repeat id.
func CheckUserID(id string) error {
	if problem := checkUserID(id); problem != "" {
		return errors.New("user id: " + problem)
	}
	return nil
}
