package edge

import (
	"net/netip"
	"strings"
)

func (l *live) trusts(addr netip.Addr) bool {
	for _, p := range l.proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// client returns who asks, when the peer is trusted: the last address of X-Forwarded-For that is not a trusted proxy's. What stands
// left of that was written by strangers, and so was what is no address.
func (l *live) client(peer netip.Addr, forwardedFor []string) netip.Addr {
	client := peer
	for i := len(forwardedFor) - 1; i >= 0; i-- {
		list := forwardedFor[i]
		for list != "" {
			var entry string
			if j := strings.LastIndexByte(list, ','); j >= 0 {
				list, entry = list[:j], list[j+1:]
			} else {
				list, entry = "", list
			}
			addr, ok := forwardedAddr(strings.TrimSpace(entry))
			if !ok {
				return client
			}
			if client = addr; !l.trusts(addr) {
				return client
			}
		}
	}
	return client
}

// forwardedAddr reads an entry of X-Forwarded-For; some proxies add the port.
func forwardedAddr(entry string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.Trim(entry, "[]"))
	if err != nil {
		withPort, err := netip.ParseAddrPort(entry)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone(""), true
}
