package webhook

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
)

// A guard says which addresses may be connected to. It looks at what a name was
// resolved to, in the moment of the connection: a name can't mean something else
// then.
type guard struct {
	allow    []netip.Prefix
	only     bool          // nothing but allow
	resolver *net.Resolver // nil: the system's
}

// A blockedError says that an address may not be connected to.
type blockedError struct{ address netip.Addr }

func (e *blockedError) Error() string {
	return fmt.Sprintf("the address %v is not one of the public internet: list its network under allow if messages may go there", e.address)
}

// control is for [net.Dialer].
func (g guard) control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return g.check(to.Addr())
}

func (g guard) check(address netip.Addr) error {
	a := address.WithZone("").Unmap()
	allowed := func(p netip.Prefix) bool { return p.Masked().Contains(a) }
	if slices.ContainsFunc(g.allow, allowed) || !g.only && public(a) {
		return nil
	}
	return &blockedError{address}
}

// public reports whether an address is one of the public internet. It knows no
// IPv4 address in IPv6 but for NAT64.
func public(a netip.Addr) bool {
	if nat64.Contains(a) {
		bytes := a.As16()
		a = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	within := func(p netip.Prefix) bool { return p.Contains(a) }
	return (a.Is4() || global.Contains(a)) && !slices.ContainsFunc(reserved, within)
}

var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96")
	global = netip.MustParsePrefix("2000::/3") // all that is public in IPv6 so far
)

// reserved are the networks that are not of the public internet, as IANA's
// registries of special-purpose addresses have them.
var reserved = prefixes(
	"0.0.0.0/8",        // this host
	"10.0.0.0/8",       // private
	"100.64.0.0/10",    // behind a provider's NAT
	"127.0.0.0/8",      // loopback
	"169.254.0.0/16",   // link-local, with the clouds' metadata
	"172.16.0.0/12",    // private
	"192.0.0.0/24",     // protocols
	"192.0.2.0/24",     // documentation
	"192.88.99.0/24",   // relays of 6to4
	"192.168.0.0/16",   // private
	"198.18.0.0/15",    // benchmarks
	"198.51.100.0/24",  // documentation
	"203.0.113.0/24",   // documentation
	"224.0.0.0/4",      // multicast
	"240.0.0.0/4",      // reserved, and broadcast
	"168.63.129.16/32", // Azure's host
	"2001::/23",        // protocols, Teredo among them
	"2001:db8::/32",    // documentation
	"2002::/16",        // 6to4, which hides an IPv4 address
	"3fff::/20",        // documentation
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}
