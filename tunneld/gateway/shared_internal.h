/* Inside of the gateway: what concerns its store, and other nodes that share it. */
#ifndef TD_GATEWAY_SHARED_INTERNAL_H
#define TD_GATEWAY_SHARED_INTERNAL_H
#include "tunneld/gateway/internal.h"

/* --- open.c ------------------------------------------------------------------------- */
int gw_store_open(struct td_gateway *g, char *why, size_t cap);

/* --- record.c ----------------------------------------------------------------------- */
void gw_records_init(struct td_gateway *g);
void gw_records_fini(struct td_gateway *g);	   /* what could not be written is tried a last time */
void gw_record_unwritten(void *g, const char *id); /* of td_store_cb */

/* --- token.c ------------------------------------------------------------------------ */
/* Of a shared store: the hashes that a token can have, and what it says of one. */
unsigned gw_token_hashes(const struct gw_marks *owner, const char *token, uint8_t hashes[TD_KEYS_MAX][32]);
struct gw_grant {
	enum gw_role role;
	unsigned link;
	bool bound;
	const char *id; /* of the session or instance */
	char *text;
	const char *client_id;
};
/* fn once it is in the store; the last one of t is meant. */
void gw_token_share(struct td_gateway *g, const struct gw_tokens *t, enum gw_role role, const char *id,
		    td_store_done *fn, void *ctx);
bool gw_grant_read(struct gw_grant *out, const char *value); /* then gw_grant_fini */
void gw_grant_fini(struct gw_grant *gr);
void gw_token_found(struct td_gateway *g, struct gw_tokens *t, const uint8_t hash[32], const struct gw_grant *gr);
void gw_token_missing(struct gw_tokens *t, const uint8_t hash[32]);

/* --- words.c ----------------------------------------------------------------------- */
struct gw_words {
	struct tnl_buf b;
	struct tnl_jw w;
};
/* err 0: the node has answered; TNL_ENOTFOUND: it is not there; TNL_ETIMEOUT; as td_store_say. May be called inside. */
typedef void gw_words_fn(void *ctx, int err, bool ok);
void gw_words_begin(const struct td_gateway *g, struct gw_words *w, const char *op);
void gw_words_say(struct td_gateway *g, const char *node /* NULL: all */, struct gw_words *w);
void gw_words_ask(struct td_gateway *g, const char *node, struct gw_words *w, gw_words_fn *fn, void *ctx);
void gw_words_answer(struct td_gateway *g, const struct tnl_json *question, bool ok);
void gw_words_answered(struct td_gateway *g, const struct tnl_json *answer);
void gw_words_forget(struct td_gateway *g, const void *ctx);
void gw_words_fini(struct td_gateway *g);

/* --- instance.c, session.c, control.c ---------------------------------------------- */
void gw_instance_tell(struct gw_instance *i); /* the store, what is known of it: it is here, or not */
/* What the store knows of it; v NULL: nothing. */
void gw_instance_read(struct gw_instance *i, const struct td_store_instance *v);
void gw_instance_at(struct gw_instance *i, const char *node); /* its control channel is there; "": nowhere else */
bool gw_instance_is_up(const struct gw_instance *i);	      /* connected, here or elsewhere */
/* One that was another node's, or nobody's; NULL: no memory. */
struct gw_session *gw_session_adopt(struct td_gateway *g, const struct td_store_session *r);
void gw_session_lose(struct td_gateway *g, const char *id, const char *node); /* it is another node's now */
/* The same when the control channel is at another node: fn hears how that went. */
void gw_control_start_at(struct gw_session *s, const char *node, gw_words_fn *fn, void *ctx);
void gw_control_arrived(struct gw_instance *i, const char *node); /* the control channel is there */
/* What an agent said of the end of a session, here; false: it is not here. */
bool gw_control_completed(struct td_gateway *g, const char *id, const char *instance, bool success, const char *output);

/* --- settle.c ------------------------------------------------------------------------- */
/* The store is asked for the token of a link's first frame, and for its session when it is not here; then goes
 * then(l, p, n), which decides as if the token had been granted here.  Or the link is closed. */
void gw_settle(struct gw_link *l, const uint8_t *p, size_t n, const char *token,
	       void (*then)(struct gw_link *l, uint8_t *p, size_t n));

/* --- place.c ----------------------------------------------------------------------------- */
/* A place for a session of u to i on all nodes: then() follows with c->admitted and the node of the instance, or with
 * NULL: it is nowhere; or the call is answered. */
void gw_place_ask(struct gw_call *c, const struct td_user_config *u, const struct gw_instance *i,
		  void (*then)(struct gw_call *c, const char *node));

/* --- call.c, grant.c, api_elsewhere.c ------------------------------------------- */
/* The store or a node is away: the call is answered (503). */
void gw_call_unavailable(struct gw_call *c);
/* api_elsewhere.c: the call is about a session that is not here. */
void gw_elsewhere(struct gw_call *c, const char *id);
void gw_answer_grant(struct gw_call *c, const char *id);
void gw_answer_id(struct gw_call *c, const char *id);
/* A token for an end of a session that is not here; fn hears of the store, c->token has it. */
void gw_grant_elsewhere(struct gw_call *c, enum gw_role role, const char *id, const char *client_id, unsigned link,
			td_store_done *fn);

/* --- split.c --------------------------------------------------------------------------- */
void gw_split_bandwidth(struct td_gateway *g);

/* --- drain.c --------------------------------------------------------------------------- */
void gw_drain_at_once(struct td_gateway *g); /* another gateway has our name: links are better at others */

/* --- hear.c ---------------------------------------------------------------------------- */
extern const struct td_store_cb gw_hear;
void gw_hear_init(struct td_gateway *g);

#endif
