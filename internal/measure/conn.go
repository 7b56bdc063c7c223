package measure

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/filterd/filterd/internal/resp"
)

// dial connects to the Redis of a URL and logs in. The connection is the
// caller's, without a client around it.
func dial(ctx context.Context, url string) (net.Conn, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	conn, err := redis.NewDialer(options)(ctx, options.Network, options.Addr)
	if err != nil {
		return nil, err
	}
	login := []string{options.Username, options.Password}
	if options.Username == "" {
		login = login[1:]
	}
	if options.Password == "" {
		return conn, nil
	}
	if err := ask(conn, "AUTH", login...); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("log in: %w", err)
	}
	return conn, nil
}

// ask sends a command that is answered by OK.
func ask(conn net.Conn, name string, args ...string) error {
	if _, err := conn.Write(resp.AppendCommand(nil, name, args...)); err != nil {
		return err
	}
	line, err := bufio.NewReaderSize(conn, 16).ReadString('\n') // nothing else comes before the next command
	if err == nil && line != "+OK\r\n" {
		err = fmt.Errorf("%s", strings.TrimSpace(strings.TrimPrefix(line, "-")))
	}
	return err
}

// redisCPU returns the CPU time that a server has used.
func redisCPU(ctx context.Context, rdb *redis.Client) (time.Duration, error) {
	info, err := rdb.Info(ctx, "cpu").Result()
	if err != nil {
		return 0, fmt.Errorf("ask Redis for its CPU time: %w", err)
	}
	var seconds float64
	for line := range strings.Lines(info) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if key == "used_cpu_sys" || key == "used_cpu_user" {
			part, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, fmt.Errorf("ask Redis for its CPU time: %w", err)
			}
			seconds += part
		}
	}
	return time.Duration(seconds * 1e9), nil
}

// heldBack returns how many bytes Redis holds back at most for a client that
// has subscribed to something.
func heldBack(ctx context.Context, rdb *redis.Client) (int64, error) {
	clients, err := rdb.Do(ctx, "CLIENT", "LIST", "TYPE", "pubsub").Text()
	if err != nil {
		return 0, fmt.Errorf("ask Redis how far its subscribers are behind: %w", err)
	}
	var most int64
	for line := range strings.Lines(clients) {
		_, value, _ := strings.Cut(line, " omem=")
		value, _, _ = strings.Cut(value, " ")
		if held, err := strconv.ParseInt(value, 10, 64); err == nil {
			most = max(most, held)
		}
	}
	return most, nil
}

// subscribed reports whether every name has a subscriber, and there are that
// many patterns.
func subscribed(ctx context.Context, rdb *redis.Client, names []string, globs int) (bool, error) {
	if len(names) > 0 {
		subscribers, err := rdb.PubSubNumSub(ctx, names...).Result()
		if err != nil {
			return false, err
		}
		for _, n := range subscribers {
			if n == 0 {
				return false, nil
			}
		}
	}
	if globs == 0 {
		return true, nil
	}
	patterns, err := rdb.PubSubNumPat(ctx).Result()
	return patterns >= int64(globs), err
}
