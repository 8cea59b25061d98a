/* Both ends of a direct link, TLS being up: the client's proof, the server's, then WebSocket frames (lib/direct.h). */
#ifndef TD_NET_DIRECT_PROOF_H
#define TD_NET_DIRECT_PROOF_H
#include "lib/direct.h"
#include "tunneld/net/conn.h"

struct td_direct_proof { /* of one connection; zero at its start */
	uint8_t got[TNL_DIRECT_PROOF];
	size_t have;
};
/* Writes the proof of this end. 0 or an error. */
int td_direct_prove(struct td_conn *c, const uint8_t secret[TNL_DIRECT_SECRET], bool client) TNL_MUST_USE;
/* Reads the other's: 0: it is right, TNL_EAGAIN: more has to come (or the end of the connection is told), TNL_EAUTH:
 * wrong. Not a byte behind it is read. */
int td_direct_check(struct td_direct_proof *p, struct td_conn *c, const uint8_t secret[TNL_DIRECT_SECRET],
		    bool client) TNL_MUST_USE;

#endif
