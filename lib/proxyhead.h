/* The head of HAProxy's PROXY protocol, versions 1 (text) and 2 (binary): who connected, and to which address, told as
 * the first bytes of a connection.  No state; the names are those of its specification.
 *
 *   write:  a head from addresses.  One of Unix addresses or of none says UNKNOWN (v1) or LOCAL (v2).
 *   parse:  is given what has come so far, from the first byte, and says how long the head is.  Strict: it is the other
 *           end of a trusted hop, and what it does not say exactly is refused.  No more than TNL_PROXYHEAD_MAX bytes
 *           need to be kept before it knows. */
#ifndef TNL_PROXYHEAD_H
#define TNL_PROXYHEAD_H
#include "lib/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_PROXYHEAD_MAX 2048u	   /* a head with its fields that is longer is refused */
#define TNL_PROXYHEAD_LONGEST 107u /* that is written */
#define TNL_PROXYHEAD_PATH 108u

enum tnl_proxyhead_family { TNL_PROXYHEAD_NONE, TNL_PROXYHEAD_INET, TNL_PROXYHEAD_INET6, TNL_PROXYHEAD_UNIX };

struct tnl_proxyhead_end {
	uint8_t ip[16]; /* INET: the first four; in network order */
	uint16_t port;
	char path[TNL_PROXYHEAD_PATH + 1]; /* UNIX; "": none, or one without a name */
};

struct tnl_proxyhead {
	int version; /* 1, 2 */
	bool local;  /* LOCAL: the sender's own connection (a health check); there are no addresses in it */
	bool dgram;
	enum tnl_proxyhead_family family; /* NONE: the sender does not know, or does not say */
	struct tnl_proxyhead_end source, destination;
};

/* How many bytes. */
size_t tnl_proxyhead_write(const struct tnl_proxyhead *h, uint8_t out[TNL_PROXYHEAD_LONGEST]);
/* One field more at the end of a head of version 2 that was written, of n bytes: how many there are now; 0: it has no
 * room in `cap` bytes, or in any head. */
size_t tnl_proxyhead_add(uint8_t *head, size_t n, size_t cap, uint8_t type, const void *p, size_t len);
/* The field behind *at, 0 for the first, of a head that was parsed and has n bytes; false: there are no more. */
bool tnl_proxyhead_next(const uint8_t *head, size_t n, size_t *at, uint8_t *type, const uint8_t **p, size_t *len);
/* The length of the head, which is *h; TNL_EAGAIN: so far it may become one; TNL_ESYNTAX: it is none, or a wrong one;
 * TNL_ETOOBIG: one that is too long.  An answer other than TNL_EAGAIN does not change when more comes. */
int tnl_proxyhead_parse(const void *p, size_t n, struct tnl_proxyhead *h) TNL_MUST_USE;
/* Do these first bytes begin like one? For who does not expect it: true only when all bytes up to the 6th (v1) or the
 * 12th (v2) are there and are those. */
bool tnl_proxyhead_looks(const void *p, size_t n);

#endif
