/* JSON payloads of the handshake (docs/protocol.md "Handshake"), both ends:
 * writers and strict-enough readers. No state: the order of things is the session's. */
#ifndef TNL_HANDSHAKE_H
#define TNL_HANDSHAKE_H
#include "lib/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_HS_MAX_ACTIONS 16
#define TNL_HS_MAX_JSON (64u * 1024)
#define TNL_HS_CHALLENGE 64u
#define TNL_HS_CIPHERTEXT_MAX 8192u /* of the wrapped key; AWS: 6,144 */
#define TNL_CAPS_VERSION 1
#define TNL_CAPS_SEAL 2
#define TNL_CAPS_LINKS 8 /* through a gateway */
#define TNL_MIN_PAYLOAD 1024u

enum tnl_action_status { TNL_ACTION_OK = 1, TNL_ACTION_FAILED = 2, TNL_ACTION_UNSUPPORTED = 3 };
enum tnl_hs_action { TNL_ACT_OTHER, TNL_ACT_SESSION_TYPE, TNL_ACT_KMS, TNL_ACT_CAPABILITIES };

/* A direct link beside the gateway's (lib/direct.h): none; when there is one; nothing but the session's own words goes
 * over the gateway's. */
enum tnl_direct_use { TNL_DIRECT_NO, TNL_DIRECT_AUTO, TNL_DIRECT_ONLY };

/* TunneldCapabilities: what two ends of our own agree on. */
struct tnl_caps {
	bool present;
	int version, smux;
	size_t max_payload;
	bool half_close, encrypt;
	bool crc32c;		    /* Digest: messages carry a CRC32C instead of a SHA-256 */
	int seal;		    /* 2: encrypted payloads are bound to their place (lib/seal.h); 0: they are not */
	unsigned links;		    /* at most so many for the session; 0, 1: one */
	bool link_queue;	    /* acks ask what stands before the next hop (lib/message.h) */
	enum tnl_direct_use direct; /* agent: it may be asked for tickets; client: what it makes of that */
	bool reset_words;	    /* RST frames may say in words why */
	bool opens;		    /* a stream may be opened with a kind (lib/session.h) */
	bool udp;		    /* a stream may carry datagrams (lib/dgram.h) */
	bool reverse;		    /* the agent may listen for the client, and open streams (lib/reverse.h) */
	int dial;		    /* version of lib/head.h: each stream says where it goes; 0: none does */
	char program[16];	    /* version of the tunneld that wrote them, "" when not told */
};
/* The subset that both offer; program is b's. */
struct tnl_caps tnl_caps_meet(const struct tnl_caps *a, const struct tnl_caps *b);

struct tnl_hs_request {
	char *agent_version, *session_type, *properties_json; /* properties_json NULL: null */
	bool kms;
	char *kms_key_id, *challenge; /* challenge NULL: none */
	struct tnl_caps caps;
	int nactions; /* in the order asked for */
	struct {
		enum tnl_hs_action kind;
		char *name;
	} actions[TNL_HS_MAX_ACTIONS];
};
/* Standard order: SessionType, KMSEncryption, TunneldCapabilities; `actions` is not used. */
int tnl_hs_request_write(struct tnl_buf *b, const struct tnl_hs_request *r);
int tnl_hs_request_parse(const void *p, size_t n, struct tnl_hs_request *r, const char **fault) TNL_MUST_USE;
void tnl_hs_request_fini(struct tnl_hs_request *r);

struct tnl_hs_response {
	char *client_version;
	int session_type_status, kms_status; /* 0: not answered */
	char *error;			     /* text of the first failed action; NULL none */
	uint8_t *ciphertext;
	size_t ciphertext_len;
	bool challenge_ack;
	struct tnl_caps caps;
};
/* Answers each action of `r`; `caps` says whether TunneldCapabilities is taken. */
int tnl_hs_response_write(struct tnl_buf *b, const struct tnl_hs_request *r, const struct tnl_hs_response *a);
int tnl_hs_response_parse(const void *p, size_t n, struct tnl_hs_response *a, const char **fault) TNL_MUST_USE;
void tnl_hs_response_fini(struct tnl_hs_response *a);

int tnl_hs_complete_write(struct tnl_buf *b, uint64_t took_ns, const char *customer_message);
/* *customer_message: heap text (tnl_free), "" when absent. */
int tnl_hs_complete_parse(const void *p, size_t n, char **customer_message) TNL_MUST_USE;

int tnl_hs_challenge_write(struct tnl_buf *b, const uint8_t *sealed, size_t n);
/* Returns the decoded length, at most cap, or TNL_ESYNTAX. */
int tnl_hs_challenge_parse(const void *p, size_t n, uint8_t *out, size_t cap) TNL_MUST_USE;

/* What the peer's version allows (exactly four numbers, else the oldest is assumed). */
bool tnl_agent_version_mux(const char *v);	       /* > 3.0.196.0 */
bool tnl_agent_version_terminate(const char *v);       /* > 2.3.722.0: knows the TerminateSession flag */
bool tnl_client_version_mux(const char *v);	       /* ≥ 1.1.70.0 */
bool tnl_agent_version_smux_keepalive(const char *v);  /* not above 3.1.1511.0: without NOPs it gives up */
bool tnl_client_version_smux_keepalive(const char *v); /* not above 1.2.331.0 */

#endif
