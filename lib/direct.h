/* The direct link of a session (docs/protocol.md "The direct link"): the words about it, and what proves to each end
 * that the other holds the same ticket.  No state.
 *
 *   gateway → both ends   policy: may there be one, and for how long without the gateway
 *   client  → agent       want:   a ticket, please
 *   agent   → client      ticket: addresses, hash of the key, a secret that is good for one handshake
 *   ends    → gateway     report: is it up, bytes in each direction
 *
 * These words go over the gateway's link alone, in messages without a number: they must pass also while the session's
 * own messages may not.  Whatever gets lost is asked for again.
 *
 * The dial:  TLS 1.3; the ClientHello's server name is made from the secret, and an agent that does not know the name
 * ends the handshake before it shows anything.  The client takes only the key of the ticket.  Then both send a proof
 * made from the secret and this connection's exporter, so that nobody stands between them; behind it come WebSocket
 * frames. */
#ifndef TNL_DIRECT_H
#define TNL_DIRECT_H
#include "lib/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_DIRECT_ADDRESSES 8
#define TNL_DIRECT_ADDRESS 272 /* with the NUL: a name of 253, brackets, port */
#define TNL_DIRECT_JSON 4096u  /* of a message */
#define TNL_DIRECT_SECRET 32u
#define TNL_DIRECT_NAME 40u /* characters, without the NUL */
#define TNL_DIRECT_PROOF 32u
#define TNL_DIRECT_LABEL "EXPORTER-tunneld-direct-1"

enum tnl_direct_kind { TNL_DIRECT_POLICY, TNL_DIRECT_WANT, TNL_DIRECT_TICKET, TNL_DIRECT_REPORT };

struct tnl_direct_ticket {
	int naddresses;
	char addresses[TNL_DIRECT_ADDRESSES][TNL_DIRECT_ADDRESS]; /* HOST:PORT, [IPV6]:PORT */
	uint8_t key[32];					  /* SHA-256 of the SubjectPublicKeyInfo */
	uint8_t secret[TNL_DIRECT_SECRET];
};

struct tnl_direct {
	enum tnl_direct_kind kind;
	bool allow;		 /* policy */
	uint64_t grace_ms;	 /* policy */
	bool up;		 /* report */
	uint64_t sent, received; /* report: bytes over direct links, since the session began */
	struct tnl_direct_ticket ticket;
};
int tnl_direct_write(struct tnl_buf *b, const struct tnl_direct *d) TNL_MUST_USE;
/* 0 or TNL_ESYNTAX. Numbers and lists that are too large do not pass. */
int tnl_direct_parse(const void *p, size_t n, struct tnl_direct *d) TNL_MUST_USE;

/* "HOST:PORT", "[IPV6]:PORT": the host without brackets. false: it is neither. */
bool tnl_direct_address_split(const char *s, char host[TNL_DIRECT_ADDRESS], uint16_t *port);

void tnl_direct_name(const uint8_t secret[TNL_DIRECT_SECRET], char out[TNL_DIRECT_NAME + 1]);
/* exported: TNL_DIRECT_PROOF bytes of the connection's exporter for TNL_DIRECT_LABEL. */
void tnl_direct_proof(const uint8_t secret[TNL_DIRECT_SECRET], const uint8_t exported[TNL_DIRECT_PROOF], bool client,
		      uint8_t out[TNL_DIRECT_PROOF]);

#endif
