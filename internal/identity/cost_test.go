package identity

import (
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

func BenchmarkIdentify(b *testing.B) {
	is := newIssuer(b)
	v := verifier(b, is.public(b))
	key := jwtKey(b, "jwt:sub")
	for name, token := range map[string]string{
		"rs256": sign(b, jwt.SigningMethodRS256, "r", is.rsa, claims()),
		"es256": sign(b, jwt.SigningMethodES256, "e", is.ec, claims()),
		"eddsa": sign(b, jwt.SigningMethodEdDSA, "d", is.ed, claims()),
	} {
		head := request(b, "/", "Authorization", "Bearer "+token)
		b.Run(name+"/fresh", func(b *testing.B) {
			for b.Loop() {
				v.keys.current.Load().known.Purge()
				if _, err := v.Identify(key, &head); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/remembered", func(b *testing.B) {
			for b.Loop() {
				if _, err := v.Identify(key, &head); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
