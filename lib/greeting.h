/* What a local program says to a proxy before its own bytes, told apart by the first one: SOCKS5 (RFC 1928, 1929),
 * SOCKS4 and 4a, and HTTP CONNECT (RFC 9110, 9.3.6); and what it is answered.
 *
 * Lines of a head end with CR LF, or with LF alone, as some programs write them: nothing of a head is passed on.
 * Names are passed on as they are.  Refused, in the protocol's own words: BIND, UDP ASSOCIATE, plain HTTP proxying, and
 * where a password is wanted what has none.  The parser takes bytes as they come, and none behind the request. */
#ifndef TNL_GREETING_H
#define TNL_GREETING_H
#include "lib/buf.h"
#include "lib/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_GREETING_MAX 8192u /* of the longest message, a head of HTTP */
#define TNL_GREETING_OUT 512u  /* of an answer */

enum tnl_greeting_kind { TNL_GREETING_NONE, TNL_GREETING_SOCKS5, TNL_GREETING_SOCKS4, TNL_GREETING_HTTP };
/* MORE: nothing yet.  PASSWORD: user and password are there, tnl_greeting_admit says what comes of them.  READY: host
 * and port are there.  OVER: it is refused, and answered. */
enum tnl_greeting_event { TNL_GREETING_MORE, TNL_GREETING_PASSWORD, TNL_GREETING_READY, TNL_GREETING_OVER };
/* How it came out.  docs/proxy.md has what each protocol makes of it. */
enum tnl_greeting_result {
	TNL_GREETING_OK,
	TNL_GREETING_DENIED,  /* by a rule */
	TNL_GREETING_NO_WAY,  /* there is no session to carry it */
	TNL_GREETING_NET,     /* no way to its network, from the far end */
	TNL_GREETING_HOST,    /* no way to the host, or no such host */
	TNL_GREETING_TIMEOUT, /* the destination does not answer */
	TNL_GREETING_REFUSED, /* it does: no */
	TNL_GREETING_FAILED,
	TNL_GREETING_RESULTS
};

struct tnl_greeting {
	enum tnl_greeting_kind kind;
	bool want_password, admitted, answered;
	int step;
	struct tnl_buf in; /* the message at hand */
	char host[256], user[256], password[256];
	uint16_t port;
	const char *fault;	       /* OVER: why, for a log */
	uint8_t out[TNL_GREETING_OUT]; /* to be sent now; taken with tnl_greeting_take */
	size_t out_len;
};
void tnl_greeting_init(struct tnl_greeting *g, bool want_password);
void tnl_greeting_fini(struct tnl_greeting *g); /* wipes */
/* *used of n bytes are taken.  After READY and OVER none is. */
enum tnl_greeting_event tnl_greeting_feed(struct tnl_greeting *g, const uint8_t *p, size_t n, size_t *used);
enum tnl_greeting_event tnl_greeting_admit(struct tnl_greeting *g, bool ok);
size_t tnl_greeting_take(struct tnl_greeting *g, const uint8_t **p); /* what is to be sent, once */
/* After READY: the answer to the request, once; 0: it has been given.  words: why it did not come to be, "" if nobody
 * said; where the protocol has room for words they are made one line of printable ASCII, and cut to what fits. */
size_t tnl_greeting_answer(struct tnl_greeting *g, enum tnl_greeting_result r, const char *words,
			   uint8_t out[TNL_GREETING_OUT]);

#endif
