/* The 120-byte binary message (docs/protocol.md "The message").
 * Encoding and strict decoding; no memory is kept. */
#ifndef TNL_MESSAGE_H
#define TNL_MESSAGE_H
#include "lib/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_MSG_HDR 120u	   /* bytes in front of the payload */
#define TNL_MSG_HEADER_LENGTH 116u /* the HeaderLength field */
#define TNL_MSG_MAX_PAYLOAD (256u * 1024 - TNL_MSG_HDR)
#define TNL_CHANNEL_CAP 10000u /* messages that an end holds at most: unacknowledged, or beyond a hole */

enum tnl_mtype {
	TNL_MT_UNKNOWN,
	TNL_MT_INPUT,
	TNL_MT_OUTPUT,
	TNL_MT_ACK,
	TNL_MT_CHANNEL_CLOSED,
	TNL_MT_START_PUBLICATION,
	TNL_MT_PAUSE_PUBLICATION,
	TNL_MT_INTERACTIVE_SHELL,
	TNL_MT_AGENT_JOB,
	TNL_MT_AGENT_JOB_ACK,
	TNL_MT_AGENT_JOB_REPLY,
	TNL_MT_AGENT_JOB_REPLY_ACK,
	TNL_MT_TASK_COMPLETE,
	TNL_MT_TASK_ACK,
	TNL_MT_TASK_REPLY,
	TNL_MT_SESSION_STATE,
	TNL_MT_TELEMETRY,
	TNL_MT_UPDATE_RESULT,
	TNL_MT_DIRECT, /* our own: lib/direct.h */
	TNL_MT_COUNT
};

enum tnl_ptype {
	TNL_PT_NONE = 0,
	TNL_PT_OUTPUT = 1,
	TNL_PT_ERROR,
	TNL_PT_SIZE,
	TNL_PT_PARAMETER,
	TNL_PT_HANDSHAKE_REQUEST,
	TNL_PT_HANDSHAKE_RESPONSE,
	TNL_PT_HANDSHAKE_COMPLETE,
	TNL_PT_ENC_CHALLENGE_REQUEST,
	TNL_PT_ENC_CHALLENGE_RESPONSE,
	TNL_PT_FLAG,
	TNL_PT_STDERR,
	TNL_PT_EXIT_CODE,
	TNL_PT_REVERSE = 0x746e0001 /* our own: lib/reverse.h */
};

enum tnl_flag { TNL_FLAG_DISCONNECT = 1, TNL_FLAG_TERMINATE = 2, TNL_FLAG_CONNECT_ERROR = 3 };

/* What stands in the digest field: SHA-256, or, between our own ends (capability Digest), CRC32C behind a mark. */
enum tnl_digest { TNL_DIGEST_SHA256, TNL_DIGEST_CRC32C };

#define TNL_MF_SYN 1u
#define TNL_MF_FIN 2u
#define TNL_MF_FULL 4u /* our own, on an ack: struct tnl_hop */

struct tnl_msg {
	enum tnl_mtype type;
	uint32_t schema;
	uint64_t created_ms;
	int64_t seq;
	uint64_t flags;
	uint8_t id[16];		/* UUID, natural order */
	uint32_t ptype;		/* as on the wire, not only enum tnl_ptype */
	const uint8_t *payload; /* borrowed from the input */
	uint32_t plen;		/* what follows the header */
	unsigned odd;		/* enum tnl_odd: what a stock end would not have looked at */
	enum tnl_digest digest; /* how to seal it; not filled by decoding */
};

/* What ends of our own never send, and stock ends take all the same (docs/protocol.md "What each end accepts"). */
enum tnl_odd { TNL_ODD_SCHEMA = 1, TNL_ODD_LENGTH = 2, TNL_ODD_DIGEST = 4 };

/* What is wrong with a message, for the log: a field name such as "HeaderLength". */
struct tnl_msg_fault {
	const char *field;
};

/* Decodes one whole message.  0; TNL_ESYNTAX (lengths, HeaderLength, CreatedDate,
 * schema), TNL_EDIGEST, TNL_ETYPE (well formed, unknown MessageType: out is
 * filled).  start/pause_publication: only the type is looked at (length and
 * digest may be wrong), payload empty.  `fault` may be NULL. */
int tnl_msg_decode(const uint8_t *p, size_t n, struct tnl_msg *out, struct tnl_msg_fault *fault) TNL_MUST_USE;
/* The same where the ends have agreed on `digest`: taken are that and SHA-256, which stands in what was sealed before.
 */
int tnl_msg_decode_agreed(const uint8_t *p, size_t n, enum tnl_digest digest, struct tnl_msg *out,
			  struct tnl_msg_fault *fault) TNL_MUST_USE;
/* As stock ends read: SchemaVersion, PayloadLength and PayloadDigest do not refuse a message, they are noted in
 * out->odd, and *fault names one of them. */
int tnl_msg_decode_lax(const uint8_t *p, size_t n, enum tnl_digest digest, struct tnl_msg *out,
		       struct tnl_msg_fault *fault) TNL_MUST_USE;
/* The same without the digest (what a relay may read). */
int tnl_msg_peek(const uint8_t *p, size_t n, struct tnl_msg *out, struct tnl_msg_fault *fault) TNL_MUST_USE;
/* The MessageType alone, of at least 36 bytes. */
enum tnl_mtype tnl_msg_type(const uint8_t *p) TNL_MUST_USE;

/* Writes the 120-byte header in front of the payload that stands at
 * p + TNL_MSG_HDR (m->plen bytes; m->payload is not used), digest included. */
void tnl_msg_seal(uint8_t *p, const struct tnl_msg *m);
/* Header and payload copied to `out`; returns the whole length. out: 120 + plen */
size_t tnl_msg_encode(uint8_t *out, const struct tnl_msg *m);

/* --- what an ack says of the next hop ------------------------------------ *
 * Between our own ends (capability LinkQueue) the SequenceNumber of an ack, else 0, tells what stands before the hop
 * over which the acknowledged data went on: the acknowledging end writes TNL_HOP_ASKED, and our gateway replaces that.
 * Older ends take no number with other bits, and do not look at the Flags of an ack. */
struct tnl_hop {
	uint64_t queue; /* ns that a byte waits before it is on its way; told in us, 32 bits */
	bool repairs;	/* TCP sends again what was lost: what came behind it is held back, and is no queue */
	bool full; /* a queue stands on the path itself, which carries no more; told in the Flags, which are else 3 */
};
#define TNL_HOP_ASKED ((int64_t)1 << 62)
/* The answer, written into the header of an ack: false when it did not ask. */
bool tnl_ack_tell_hop(uint8_t *msg, const struct tnl_hop *h);
/* From an ack: false when it tells nothing. */
bool tnl_ack_hop(const struct tnl_msg *ack, struct tnl_hop *h);

/* --- acknowledge payload: exact layout, no JSON library ------------------ */
#define TNL_ACK_MAX 200
struct tnl_ack {
	enum tnl_mtype type;
	uint8_t id[16];
	int64_t seq;
};
size_t tnl_ack_write(char out[TNL_ACK_MAX], const struct tnl_ack *a);
/* Fast path for the stock layout, JSON fallback for others. TNL_ESYNTAX. */
int tnl_ack_parse(const uint8_t *p, size_t n, struct tnl_ack *a) TNL_MUST_USE;

#endif
