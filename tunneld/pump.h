/* Joins a session to its link and its streams to their local sockets, for the
 * forwarder and the agent alike.
 *
 *   outward: while the link has room: session pull → link; when that is empty and
 *            the session may send: next stream → reserve → read(2) → commit.
 *   inward:  link message → session feed → on_data → write(2); rest kept, write watcher.
 *   after every event: pump, then re-arm one timer with the session's deadline.
 */
#ifndef TD_PUMP_H
#define TD_PUMP_H
#include "lib/session.h"
#include "tunneld/wslink.h"

/* --- one local socket joined to one stream -------------------------------- */
struct td_pump;
struct td_pipe;                       /* socket ⇄ stream; owns both */
struct td_pipe_cb { void (*closed)(void *ctx, struct td_pipe *p, uint32_t reset_reason /* or UINT32_MAX: orderly */, uint64_t in, uint64_t out); };

struct td_pump_cb {
	void (*ready)(void *ctx, const struct tnl_session_info *info);
	void (*open)(void *ctx, struct tnl_stream *st);                /* agent: dial */
	void (*flag)(void *ctx, uint32_t flag);
	void (*size)(void *ctx, unsigned cols, unsigned rows);
	void (*exit_code)(void *ctx, int code);
	void (*publication)(void *ctx, bool started);
	void (*kms)(void *ctx, const struct tnl_kms_request *r);
	void (*closed)(void *ctx, int err, const char *text);          /* session over: free the pump (deferred is done for you) */
	void (*pipe_closed)(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out);
	/* session without sockets (shell): bytes for the terminal; returns how many were taken */
	size_t (*data)(void *ctx, uint32_t ptype, const uint8_t *p, size_t n);
};
/* sc->cb, ctx and wall_ms are filled in by the pump. */
struct td_pump *td_pump_new(struct td_loop *l, struct tnl_session_config *sc, const struct td_pump_cb *cb, void *ctx);
void td_pump_free(struct td_pump *p);
struct tnl_session *td_pump_session(struct td_pump *p);
/* A verified, opened link (token frame sent). The pump sets the link's callbacks for messages and room;
 * its closed() is passed to `lost`. Replaces (and frees) an older one. NULL detaches. */
void td_pump_attach(struct td_pump *p, struct td_wslink *w,
		    void (*lost)(void *ctx, int err, uint16_t code, const char *why));
bool td_pump_attached(const struct td_pump *p);
void td_pump_kick(struct td_pump *p);  /* run it soon */
void td_pump_want_data(struct td_pump *p); /* shell: room in the terminal again */
/* Client: opens a stream for an accepted socket. Takes fd on success. */
struct td_pipe *td_pipe_client(struct td_pump *p, int fd, void *user, int *err);
/* Agent: the dialed socket for a stream from open(). Takes fd. */
struct td_pipe *td_pipe_agent(struct td_pump *p, struct tnl_stream *st, int fd, void *user);
/* in_fd / out_fd pair (stdin/stdout of connect); neither is closed with RST. Takes neither. */
struct td_pipe *td_pipe_fds(struct td_pump *p, int in_fd, int out_fd, void *user, int *err);
void td_pipe_abort(struct td_pipe *p, uint32_t reason);            /* RST to the local side and the stream */
size_t td_pump_pipes(const struct td_pump *p);

#endif
