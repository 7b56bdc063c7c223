package pubsub

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/redistest"
)

// A certificate is one made for a test, in PEM files.
type certificate struct {
	cert, key string // file names
	parsed    *x509.Certificate
	private   *ecdsa.PrivateKey
}

// newCertificate makes a certificate, signed by parent, or by itself if that
// is nil.
func newCertificate(t *testing.T, parent *certificate, name string) *certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		DNSNames:              []string{name},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if name == "localhost" {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	signer := &certificate{parsed: template, private: private}
	if parent == nil {
		template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	} else {
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.parsed, &private.PublicKey, signer.private)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(kind string, der []byte) string {
		file := filepath.Join(t.TempDir(), "pem")
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return &certificate{write("CERTIFICATE", der), write("PRIVATE KEY", keyDER), parsed, private}
}

// startTLS starts a server that speaks TLS on a second port, whose address it
// returns.
func startTLS(t *testing.T, ca, cert *certificate, args ...string) (*redistest.Server, string) {
	t.Helper()
	port := redistest.FreePort(t)
	server := redistest.Start(t, append([]string{
		"--tls-port", port, "--tls-ca-cert-file", ca.cert, "--tls-cert-file", cert.cert, "--tls-key-file", cert.key,
	}, args...)...)
	return server, "127.0.0.1:" + port
}

func TestTLS(t *testing.T) {
	ca := newCertificate(t, nil, "test CA")
	server, addr := startTLS(t, ca, newCertificate(t, ca, "localhost"), "--tls-auth-clients", "no")
	_, named := startTLS(t, ca, newCertificate(t, ca, "redis.example"), "--tls-auth-clients", "no")
	_, strict := startTLS(t, ca, newCertificate(t, ca, "localhost")) // wants a certificate from clients, too
	bot := newCertificate(t, ca, "bot")

	for name, options := range map[string]Options{
		"CA":          {Addrs: []string{addr}, TLS: &TLS{CA: ca.cert}},
		"url":         {URL: filterd.Secret("rediss://" + addr), TLS: &TLS{CA: ca.cert}},
		"redis url":   {URL: filterd.Secret("redis://" + addr), TLS: &TLS{CA: ca.cert}},
		"server name": {Addrs: []string{named}, TLS: &TLS{CA: ca.cert, ServerName: "redis.example"}},
		"both sides":  {Addrs: []string{strict}, TLS: &TLS{CA: ca.cert, Cert: bot.cert, Key: bot.key}},
	} {
		t.Run(name, func(t *testing.T) { connects(t, options) })
	}

	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"unknown CA": {
			Options{URL: filterd.Secret("rediss://" + addr)},
			"redis at " + addr + ": tls: failed to verify certificate: x509: certificate signed by unknown authority (give the file of the CA that signed the server's certificate)",
		},
		"wrong name": {
			Options{Addrs: []string{addr}, TLS: &TLS{CA: ca.cert, ServerName: "other.example"}},
			"redis at " + addr + ": tls: failed to verify certificate: x509: certificate is valid for localhost, not other.example (give the server name that its certificate holds)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Connect(deadline(t), test.options)
			wantError(t, err, test.want)
			if !errors.Is(err, ErrUnreachable) {
				t.Error("does not match ErrUnreachable")
			}
		})
	}
	// What exactly breaks is up to the two TLS libraries.
	for name, options := range map[string]Options{
		"plain to TLS":   {Addrs: []string{addr}},
		"no certificate": {Addrs: []string{strict}, TLS: &TLS{CA: ca.cert}},
	} {
		if _, err := Connect(deadline(t), options); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: %v", name, err)
		}
	}

	// Redis waits for the rest of what it takes for a command.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := Connect(ctx, Options{Addrs: []string{server.Addr}, TLS: &TLS{CA: ca.cert}})
	wantError(t, err, "redis at "+server.Addr+": context deadline exceeded (nothing answered in time: check address and firewall, and that both sides use TLS or none does)")

	t.Run("source", func(t *testing.T) {
		rdb := clientWith(t, Options{Addrs: []string{addr}, TLS: &TLS{CA: ca.cert}})
		s, r, _ := start(t, rdb, SourceOptions{}, []string{"a"}, nil)
		ready(t, s)
		server.Restart()
		eventually(t, "the gap", func() bool { return len(r.got()) == 1 })
		ready(t, s)
		say(t, server, "a", "m", 1)
		r.want(t, "gap a", "a m")
	})
}
