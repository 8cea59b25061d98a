/* An accepted local connection, from accept to close. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"

#define MOD "forwarder"

static void conn_free(struct fwd_conn *c)
{
	struct fwd_tunnel *t = c->tunnel;
	td_timer_stop(&c->patience);
	tnl_list_remove(&c->node);
	t->connections--;
	tnl_free(c);
	fwd_tunnel_update_pause(t);
	struct td_forwarder *f = t->f;
	fwd_tunnel_unref_if_over(t);
	fwd_check_drained(f);
}

void fwd_conn_placed(struct fwd_conn *c, struct fwd_session *s, struct td_pipe *p)
{
	td_timer_stop(&c->patience);
	c->fd = -1;
	c->pipe = p;
	c->session = s;
	tnl_list_remove(&c->node);
	tnl_list_push_back(&c->tunnel->conns, &c->node);
	td_debug(MOD, fwd_session_name(s), "connection opened tunnel=%s peer=%s stream=%u", c->tunnel->cfg->name,
		 c->peer, tnl_stream_id(td_pipe_stream(p)));
}

void fwd_conn_failed(struct fwd_conn *c, const char *why)
{
	td_warn(MOD, NULL, "connection reset tunnel=%s target=%s peer=%s: %s", c->tunnel->cfg->name,
		c->tunnel->cfg->target, c->peer, why);
	c->tunnel->failed++;
	td_fd_rst_close(c->fd);
	/* A session that was being started for it alone has lost its purpose. */
	tnl_list_foreach_safe(it, &c->tunnel->group->sessions)
	{
		struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (s->reserved == c) {
			s->reserved = NULL;
			fwd_session_end(s, "nobody waits for it any more");
		}
	}
	conn_free(c);
}

void fwd_conn_closed(struct fwd_conn *c, uint64_t in, uint64_t out)
{
	c->tunnel->bytes_in += in;
	c->tunnel->bytes_out += out;
	conn_free(c);
}
