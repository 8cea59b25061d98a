/* Inside of the shared store: what its files have in common.
 *
 *   store_scripts   what the server does at one go, in Lua
 *   store_redis     opening, the connections, the heartbeat
 *   store_records   sessions
 *   store_shared    tokens, instances, places, words
 *
 * Keys begin with "tunneld:1:", where 1 is the version of this schema, which "tunneld:schema" names.  A node counts as
 * there while it has sent a heartbeat within 15 s and somebody listens on its channel, which ends with its process.
 *
 *   node:NODE       its incarnation and address
 *   nodes           the names of all
 *   leaving:NODE    it goes: its sessions are free for others
 *   load:NODE       how many sessions of each user and instance it has
 *   sess:ID         a record
 *   of:NODE         the active sessions of a node
 *   act:USER        those of a user, by when they began
 *   past:USER       those that are over
 *   tok:SHA256      a token, gone when it is used or old
 *   inst:ID         where an instance is, and what is known of it
 *   rate:u:USER     when the next session of a user may start
 *   rate:i:ID       the same for an instance
 *   n:NODE, all     channels: to one node, to all */
#ifndef TD_GATEWAY_STORE_REDIS_INTERNAL_H
#define TD_GATEWAY_STORE_REDIS_INTERNAL_H
#include "lib/list.h"
#include "lib/redis.h"
#include "tunneld/gateway/store.h"
#include "tunneld/net/redis.h"

#define STORE_SCHEMA "1"
#define STORE_NODES 64u
#define STORE_NODE_MS 15000u /* a node without heartbeat is gone */
#define STORE_BEAT_NS (5 * TD_SEC)
#define STORE_LOOK_NS (100 * TD_MS) /* several nodes that come are one look */

enum store_script {
	STORE_CLAIM,
	STORE_BEAT,
	STORE_LEAVE,
	STORE_PUT,
	STORE_FIND,
	STORE_LIST,
	STORE_TAKE,
	STORE_UP,
	STORE_DOWN,
	STORE_NOTE,
	STORE_WHERE,
	STORE_ADMIT,
	STORE_COUNT,
	STORE_SUMS,
	STORE_SCRIPTS
};
struct store_redis;
struct store_ask { /* what waits for an answer */
	struct tnl_list node;
	struct store_redis *s;
	const void *ctx;
	void (*take)(struct store_ask *a, int err, const struct tnl_redis_reply *r); /* err 0: no error of the server */
	union {
		td_store_done *done;
		td_store_find_fn *find;
		td_store_list_fn *list;
		td_store_token_fn *token;
		td_store_instances_fn *instances;
		td_store_admit_fn *admit;
		td_store_counts_fn *counts;
		td_store_said_fn *said;
	} fn;
	bool forgotten;
	char *id; /* of a record that is written */
};
struct store_redis {
	struct td_loop *l;
	struct td_store_cb cb;
	void *ctx;
	char node[40], peer[128], incarnation[33];
	char channel[80];
	const char *channels[2];
	struct tnl_redis_url url;
	struct td_redis *cmd, *sub;
	struct td_timer beat;
	bool announced, taken, away, complained;
	struct tnl_list asks;
	struct td_store_node nodes[STORE_NODES];
	unsigned nnodes;
	struct td_store_stats stats;
	struct store_start *start; /* while it is opened and loaded */
};
#define STORE_TEXT(s) ((struct tnl_redis_arg){(s), strlen(s)})

/* store_scripts.c */
void td_store_scripts_load(struct td_redis *c);
const char *td_store_script_sha(enum store_script k);
/* store_redis.c */
int td_store_redis_script(struct td_redis *c, enum store_script k, const struct tnl_redis_arg *v, size_t n,
			  td_redis_fn *fn, void *ctx);
/* Asks by a script, or by a command of its own (k STORE_SCRIPTS); take() runs once, at once when it cannot be sent. */
void td_store_redis_ask(struct store_redis *s, enum store_script k, const struct tnl_redis_arg *v, size_t n,
			struct store_ask *form);
/* store_records.c */
void td_store_record_put(void *impl, const struct td_store_session *r, td_store_done *fn, void *ctx);
void td_store_record_read(const struct tnl_redis_reply *all, const char *id, struct td_store_session *r);

#endif
