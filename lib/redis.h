/* What is said to a Redis server and what comes back (RESP2): commands from their arguments, replies within bounds,
 * and the URL that names a server.  The only hiredis user, of which it takes the reader and the formatter: no socket.
 *
 *   redis://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…][/DB][?sentinel=NAME]
 *   rediss://…                       the same over TLS
 *
 * Several hosts are tried in turn.  With sentinel=NAME they are Sentinels, which are asked for the server of that name.
 */
#ifndef TNL_REDIS_H
#define TNL_REDIS_H
#include "lib/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_REDIS_HOSTS 8u
#define TNL_REDIS_BYTES (8u * 1024 * 1024) /* of a reply */
#define TNL_REDIS_BULK (4u * 1024 * 1024)  /* of one string in it */
#define TNL_REDIS_LINE (64u * 1024)	   /* of a state, an error, a number or a length */
#define TNL_REDIS_ELEMENTS 65536u	   /* of one array */
#define TNL_REDIS_NODES 131072u		   /* of a whole reply */

enum tnl_redis_type {
	TNL_REDIS_STRING,
	TNL_REDIS_STATUS,
	TNL_REDIS_INTEGER,
	TNL_REDIS_NIL,
	TNL_REDIS_ERROR,
	TNL_REDIS_ARRAY
};

struct tnl_redis_reply {
	enum tnl_redis_type type;
	int64_t integer;
	char *str; /* of strings, states and errors; a 0 behind it */
	size_t len;
	struct tnl_redis_reply **element; /* of arrays; never NULL in a whole reply */
	size_t n;
};

struct tnl_redis_reader;
struct tnl_redis_reader *tnl_redis_reader_new(void);
void tnl_redis_reader_free(struct tnl_redis_reader *r);
/* Bytes of the server. TNL_ETOOBIG, TNL_ENOMEM. */
int tnl_redis_reader_feed(struct tnl_redis_reader *r, const void *p, size_t n) TNL_MUST_USE;
/* The next whole reply, the caller's: 0; TNL_EAGAIN: more bytes; TNL_ETOOBIG, TNL_ESYNTAX: the connection is of no use
 * any more. */
int tnl_redis_reader_next(struct tnl_redis_reader *r, struct tnl_redis_reply **out) TNL_MUST_USE;
void tnl_redis_reply_free(struct tnl_redis_reply *r);
/* Element i of an array as text; NULL: it is none, or no string. r may be NULL. */
const char *tnl_redis_str_at(const struct tnl_redis_reply *r, size_t i);
int64_t tnl_redis_int_at(const struct tnl_redis_reply *r, size_t i, int64_t dflt);     /* also of a string of digits */
const struct tnl_redis_reply *tnl_redis_at(const struct tnl_redis_reply *r, size_t i); /* NULL: there is none */

struct tnl_redis_arg {
	const void *p;
	size_t n;
};
/* One command; any bytes may stand in its arguments. TNL_ENOMEM, TNL_ETOOBIG by the buffer's bound. */
int tnl_redis_command(struct tnl_buf *out, const struct tnl_redis_arg *v, size_t n) TNL_MUST_USE;

struct tnl_redis_url {
	struct {
		char host[256];
		uint16_t port;
	} hosts[TNL_REDIS_HOSTS];
	unsigned nhosts;
	char user[128], password[256]; /* "": none */
	unsigned db;
	bool tls;
	char sentinel[128]; /* "": the hosts are the servers themselves */
};
bool tnl_redis_url_is(const char *s); /* begins like one */
/* 0, or TNL_ESYNTAX and *fault says what is wrong, without showing any of it. */
int tnl_redis_url_parse(const char *s, struct tnl_redis_url *out, const char **fault) TNL_MUST_USE;

#endif
