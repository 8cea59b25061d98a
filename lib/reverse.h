/* Reverse forwarding between our own ends (capability Reverse; docs/protocol.md "Reverse forwarding"): the words about
 * listeners at the agent, and what the first frame of a connection says.  No state.
 *
 *   client → agent   listen:    bind this address; its connections are to carry that number
 *   agent  → client  listening: it is bound, and to which address    refused: it is not, or not any more, and why
 *   client → agent   unlisten:  no more of them; those that are open stay
 *
 * A word is a stream message of a payload type of its own: numbered, acknowledged, in order with the streams, and
 * encrypted where those are.  For each connection the agent opens a stream with an even id; its SYN carries the number
 * of the listener and the address of who connected. */
#ifndef TNL_REVERSE_H
#define TNL_REVERSE_H
#include "lib/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_REVERSE_JSON 2048u	    /* of a word */
#define TNL_REVERSE_BIND 128u	    /* with the NUL: ADDRESS:PORT, [IPV6]:PORT or unix:PATH */
#define TNL_REVERSE_CLIENT 64u	    /* characters */
#define TNL_REVERSE_WHY 256u	    /* with the NUL */
#define TNL_REVERSE_LISTENERS 16u   /* of a session */
#define TNL_REVERSE_MOST_MAX 65535u /* connections of a listener */

enum tnl_reverse_kind { TNL_REVERSE_LISTEN, TNL_REVERSE_UNLISTEN, TNL_REVERSE_LISTENING, TNL_REVERSE_REFUSED };

struct tnl_reverse {
	enum tnl_reverse_kind kind;
	uint16_t id;		     /* of the listener, the client's choice; not 0 */
	char bind[TNL_REVERSE_BIND]; /* listen, listening */
	uint16_t most;		     /* listen: connections at a time, not 0 */
	bool again;		     /* refused: asking again may help */
	char why[TNL_REVERSE_WHY];   /* refused; raw: escape it */
	/* listen: the same for every process of the same client and tunnel. A listener that a session of the same user
	 * and client holds already goes to the one that asks. "": it never does. */
	char client[TNL_REVERSE_CLIENT + 1];
};
int tnl_reverse_write(struct tnl_buf *b, const struct tnl_reverse *r) TNL_MUST_USE;
/* 0 or TNL_ESYNTAX. */
int tnl_reverse_parse(const void *p, size_t n, struct tnl_reverse *r) TNL_MUST_USE;

/* What stands in a SYN. `from` is cut where it does not fit. Returns the length, at most TNL_SMUX_WORDS. */
size_t tnl_reverse_head_write(uint8_t *out, uint16_t listener, const char *from);
/* false: it is none. from: at least TNL_SMUX_WORDS bytes; printable ASCII without spaces, "" when there was none. */
bool tnl_reverse_head_parse(const uint8_t *p, size_t n, uint16_t *listener, char *from);

#endif
