package webhook_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/webhook"
)

// A receiver verifies what an endpoint posts with a library of Standard
// Webhooks.
func Example() {
	const key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		verifier, err := standardwebhooks.NewWebhook(key)
		if err == nil {
			err = verifier.Verify(body, r.Header)
		}
		fmt.Println(r.Header.Get("Content-Type"), string(body), err)
	}))
	defer receiver.Close()

	endpoint, err := webhook.New(webhook.Options{
		Name:    "ops",
		URL:     filterd.Secret(receiver.URL),
		Secrets: []filterd.Secret{key},
		Allow:   []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, // the receiver is here
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer endpoint.Close()
	m := &filterd.Message{Channel: "prices", Payload: []byte(`{"price": 100.50}`)}
	if err := endpoint.Post(context.Background(), "whales", m); err != nil {
		fmt.Println(err)
	}
	fmt.Println(endpoint.Stats().Delivered, "delivered")
	// Output:
	// application/json {"price": 100.50} <nil>
	// 1 delivered
}
