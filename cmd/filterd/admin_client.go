package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/config"
)

// adminFlags are those of commands that ask a running daemon.
func adminFlags() []cli.Flag {
	return []cli.Flag{
		configFlag(),
		&cli.StringFlag{Name: "admin", Usage: "the `URL` of the daemon's admin server, instead of what the config file's section server says"},
		&cli.StringFlag{Name: "token-file", Usage: "the `FILE` with the token, for --admin"},
		&cli.StringFlag{Name: "ca", Usage: "the PEM `FILE` with the authorities to trust instead of the system's, for --admin"},
	}
}

// maxAnswer bounds an answer of a daemon, in bytes. Ten thousand rules are 8 MB.
const maxAnswer = 256 << 20

// An adminClient asks a running daemon.
type adminClient struct {
	base  string // URL without a slash at its end
	token filterd.Secret
	http  *http.Client
}

// newAdminClient finds the daemon that the flags mean.
func newAdminClient(c *cli.Context) (*adminClient, error) {
	// No proxy: the token is for the daemon only.
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: time.Minute,
	}
	client := &adminClient{http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	if c.IsSet("admin") {
		return client, client.explicit(c, transport)
	}
	for _, name := range []string{"token-file", "ca"} {
		if c.IsSet(name) {
			return nil, usage("--%s: want --admin as well", name)
		}
	}
	path := c.String("config")
	server, err := config.LoadServer(path)
	if err != nil {
		if isMissing(err) {
			return nil, usage("there is no config file %s: name the daemon's with -c, or the daemon itself by --admin URL", path)
		}
		return nil, configError(c, c.String("config"), err)
	}
	if server == nil {
		return nil, usage(`%s has no section server, so its daemon can't be asked: add "server: {}" and start it again`, path)
	}
	host, port, err := net.SplitHostPort(server.Listen)
	if err != nil || port == "0" {
		return nil, usage("%s does not say where the daemon listens, but %s: name it by --admin URL", path, server.Listen)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	client.base, client.token = "http://"+net.JoinHostPort(host, port), server.Token
	if server.TLS != nil {
		client.base = "https" + strings.TrimPrefix(client.base, "http")
		transport.TLSClientConfig, err = pinned(server.TLS.Cert)
	}
	return client, err
}

// explicit takes the daemon from flags.
func (a *adminClient) explicit(c *cli.Context, transport *http.Transport) error {
	u, err := url.Parse(c.String("admin"))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return usage("--admin %s: want http://host:port or https://host:port", c.String("admin"))
	}
	a.base = u.Scheme + "://" + u.Host + strings.TrimSuffix(u.Path, "/")
	if path := c.String("token-file"); path != "" {
		token, err := os.ReadFile(path)
		if err != nil {
			return usage("--token-file: %v", err)
		}
		a.token = filterd.Secret(strings.TrimSpace(string(token)))
		if host := u.Hostname(); u.Scheme == "http" && host != "localhost" && !net.ParseIP(host).IsLoopback() {
			return usage("--admin %s: a token is not sent in the clear to another machine: use https", c.String("admin"))
		}
	}
	if path := c.String("ca"); path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return usage("--ca: %v", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return usage("--ca: no certificate in %s", path)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return nil
}

// pinned trusts the certificate of a file, and no other: it is the daemon's own,
// whatever its names and whoever signed it.
func pinned(path string) (*tls.Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, usage("server.tls.cert: %v", err)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection does it
		VerifyConnection: func(state tls.ConnectionState) error {
			block, _ := pem.Decode(text) // the first is the server's
			if block == nil || len(state.PeerCertificates) == 0 || !bytes.Equal(state.PeerCertificates[0].Raw, block.Bytes) {
				return fmt.Errorf("the server's certificate is not the one in %s", path)
			}
			return nil
		},
	}, nil
}

// ask sends a request, and returns its answer, which the caller closes.
func (a *adminClient) ask(ctx context.Context, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return nil, usage("%v", err)
	}
	if a.token != "" {
		request.Header.Set("Authorization", "Bearer "+a.token.Reveal())
	}
	response, err := a.http.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var of *url.Error
		if errors.As(err, &of) {
			err = of.Err
		}
		return nil, &exitError{code: exitUnreachable, err: fmt.Errorf("no daemon answers at %s: %w", a.base, err)}
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	var refused adminError
	if json.Unmarshal(text, &refused) != nil || refused.Error == "" {
		return nil, &exitError{code: exitUnreachable, err: fmt.Errorf("%s is no admin server of filterd: it answers %s", a.base, response.Status)}
	}
	if response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden {
		return nil, usage("%s: %s", a.base, refused.Error)
	}
	return nil, fmt.Errorf("%s: %s", a.base, refused.Error)
}

// get asks for a JSON document.
func (a *adminClient) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	response, err := a.ask(ctx, path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(into); err != nil {
		return &exitError{code: exitUnreachable, err: fmt.Errorf("%s%s: %w", a.base, path, err)}
	}
	return nil
}

// tap shows what a rule makes of messages, until show returns false or ctx ends,
// which is no error.
func (a *adminClient) tap(ctx context.Context, rule string, query url.Values, show func(adminTapped) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	response, err := a.ask(ctx, "/api/v1/rules/"+url.PathEscape(rule)+"/tap?"+query.Encode())
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer response.Body.Close()
	// A daemon that says nothing, not even that it lives, is gone.
	silent := time.AfterFunc(3*tapSign, cancel)
	defer silent.Stop()
	lines := json.NewDecoder(response.Body)
	for {
		var line adminTapped
		err := lines.Decode(&line)
		switch {
		case err != nil && !silent.Stop():
			return &exitError{code: exitUnreachable, err: fmt.Errorf("the daemon at %s has fallen silent", a.base)}
		case err != nil && ctx.Err() != nil:
			return nil
		case err != nil:
			return &exitError{code: exitUnreachable, err: fmt.Errorf("the daemon at %s has ended the tap", a.base)}
		}
		if !show(line) {
			return nil
		}
		silent.Reset(3 * tapSign)
	}
}
