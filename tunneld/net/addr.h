/* Socket addresses: IPv4, IPv6 and Unix, and the texts of them. */
#ifndef TD_NET_ADDR_H
#define TD_NET_ADDR_H
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct td_addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
		struct sockaddr_storage ss;
	};
	socklen_t len;
};
/* A listening socket that is there already: un.sun_path is its name, and behind that a 0 and its number, from 1. */
#define TD_AF_GIVEN 0xfd
#define TD_ADDR_STR 128
const char *td_addr_str(const struct td_addr *a,
			char out[TD_ADDR_STR]); /* 127.0.0.1:80, [::1]:80, unix:/path, fd:NAME:1 */
/* Numeric host ("192.0.2.1", "2001:db8::1", "fe80::1%eth0") and port. */
bool td_addr_literal(const char *host, uint16_t port, struct td_addr *out);
/* "127.0.0.1:8080", "[::1]:8080", "localhost:80" (both families, IPv6 when the host has it), "*:80" (the
 * same), "8080" (as localhost), "unix:/path", "fd:NAME" and "fd:NAME:2" (the second of that name). Numeric and
 * localhost only. Port 0 is allowed. Returns how many addresses were filled, or -1 and *fault. */
int td_addr_parse(const char *s, struct td_addr *out, int max, const char **fault);
void td_addr_set_port(struct td_addr *a, uint16_t port);
uint16_t td_addr_port(const struct td_addr *a); /* 0 for unix */
void td_addr_unmap(
    struct td_addr *a); /* an IPv4 address in its IPv6 form, as sockets of both families show it, is IPv4 */
int td_addr_given(const struct td_addr *a); /* the number of one that is there already; else 0 */
bool td_addr_have_ipv6(void);		    /* this host can bind to ::1 */
/* Metadata services and the rest of link-local, "this host", multicast and broadcast: no peer sends anybody there. */
bool td_addr_is_nobody(const struct td_addr *a);
bool td_addr_is_loopback(const struct td_addr *a); /* 127.0.0.0/8, also in its IPv6 form, ::1 */
/* A name that leads to this machine only (RFC 6761): localhost and what ends in .localhost, with or without a last dot.
 */
bool td_addr_host_is_localhost(const char *host);
bool td_addr_host_is_loopback(const char *host); /* that, or a literal loopback address without brackets */

#endif
