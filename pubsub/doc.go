// Package pubsub connects filterd to Redis: it publishes messages that keep
// their contracts, subscribes callbacks to those that pass a filter, and is
// source and sink of the engine.
//
// [Connect] makes the connection that everything else takes: to one server, a
// Sentinel group or a Cluster. A [Publisher] builds CloudEvents events,
// validates them against the same [filterd.Registry] as the other side, and
// publishes them. A [Subscriber] calls functions with the messages that a
// [filterd.Filter] keeps. [Source] and [Sink] are what an engine runs on.
//
// Redis pub/sub delivers at most once: what is published while a subscriber
// is away is gone. A [Source] therefore watches its connection, comes back by
// itself, and reports every span in which messages may have been missed as a
// [filterd.Gap]. Nothing in this package sends a message twice.
package pubsub
