/* A trunk: many byte streams over one connection between two nodes.  Each end greets with its name, then come frames of
 * smux version 2 (lib/smux.h) with RST; a stream has a window in each direction, so that one whose reader stands still
 * holds up no other and keeps no more than that.
 *
 *   connection's bytes ─► feed ─► opened, data, ended            opened by us: open
 *   next (whose turn, by bytes) ─► reserve, commit ─► out ─► connection
 *
 * What is unexpected is the end of the trunk: the other end is one of ours.  No stream survives it. */
#ifndef TNL_TRUNK_H
#define TNL_TRUNK_H
#include "lib/buf.h"
#include "lib/list.h"
#include "lib/smux.h"
#include "lib/turns.h"

#define TNL_TRUNK_NAME 32u
#define TNL_TRUNK_WINDOW (112u * 1024) /* bytes of a stream that its reader has not taken */
#define TNL_TRUNK_DATA (128u * 1024)   /* that wait for the connection; more is not taken from streams */
#define TNL_TRUNK_CONTROL (1024u * 1024)

struct tnl_trunk;
struct tnl_trunk_stream;
struct tnl_trunk_config {
	const char *name;     /* ours; copied */
	bool dialer;	      /* its streams have odd numbers */
	unsigned max_streams; /* of both ends together */
	/* The other end has said its name, which nothing has proven; false: it is not taken. */
	bool (*greeted)(void *ctx, const char *name);
	/* The other end opens one: tnl_trunk_set_user, or tnl_trunk_close. */
	void (*opened)(void *ctx, struct tnl_trunk_stream *st);
	/* May close the stream; what of it was taken is told by tnl_trunk_taken, then or later. */
	void (*data)(void *ctx, struct tnl_trunk_stream *st, const uint8_t *p, size_t n);
	/* No more comes; reset: nor is anything wanted. Not called once it was closed here. */
	void (*ended)(void *ctx, struct tnl_trunk_stream *st, bool reset);
	/* The other end asks that what the stream carries comes to its end, in words of its own. */
	void (*dismissed)(void *ctx, struct tnl_trunk_stream *st);
	/* It may send again. */
	void (*credit)(void *ctx, struct tnl_trunk_stream *st);
	void *ctx;
};

struct tnl_trunk *tnl_trunk_new(const struct tnl_trunk_config *c); /* NULL: no memory */
void tnl_trunk_free(struct tnl_trunk *t);			   /* and its streams; nobody is told */
/* 0, TNL_EPROTO, TNL_EAUTH (its name is not taken), TNL_ELIMIT (too much waits for the connection), TNL_ENOMEM: it is
 * over then. */
int tnl_trunk_feed(struct tnl_trunk *t, const uint8_t *p, size_t n) TNL_MUST_USE;
const char *tnl_trunk_peer(const struct tnl_trunk *t); /* NULL: it has not greeted yet */
struct tnl_buf *tnl_trunk_out(struct tnl_trunk *t);    /* to be sent, and consumed */
void tnl_trunk_nop(struct tnl_trunk *t);	       /* a sign of life */
size_t tnl_trunk_streams(const struct tnl_trunk *t);
/* The i-th of them in no order; NULL: no more. For who has to tell all that it is over. */
struct tnl_trunk_stream *tnl_trunk_first(struct tnl_trunk *t);

/* NULL: there are too many, the other end has not greeted, or no memory. */
struct tnl_trunk_stream *tnl_trunk_open(struct tnl_trunk *t, void *user);
void tnl_trunk_set_user(struct tnl_trunk_stream *st, void *user);
void *tnl_trunk_user(const struct tnl_trunk_stream *st);
void tnl_trunk_want(struct tnl_trunk_stream *st); /* it has bytes to send */
/* Who is next, wants to and may; NULL: nobody. */
struct tnl_trunk_stream *tnl_trunk_next(struct tnl_trunk *t);
/* Room for up to *n bytes of its data, *n of them, then how many there are.  It has no more: commit 0. */
uint8_t *tnl_trunk_reserve(struct tnl_trunk_stream *st, size_t *n);
void tnl_trunk_commit(struct tnl_trunk_stream *st, size_t n);
void tnl_trunk_taken(struct tnl_trunk_stream *st, size_t n); /* of what came */
/* The other end is asked to bring it to its end; bytes go both ways until then. */
void tnl_trunk_dismiss(struct tnl_trunk_stream *st);
void tnl_trunk_shut(struct tnl_trunk_stream *st);  /* no more will be sent */
void tnl_trunk_close(struct tnl_trunk_stream *st); /* frees; the other end is told when it does not know */

#endif
