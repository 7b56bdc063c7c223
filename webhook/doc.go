// Package webhook posts messages to HTTP endpoints as the Standard Webhooks
// specification asks for: signed, with a stable ID, and again after a failure.
//
// An endpoint is reached directly, without a proxy, and only at addresses of
// the public internet, unless [Options].Allow says otherwise. Redirects are not
// followed.
package webhook
