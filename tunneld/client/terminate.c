#include "tunneld/client/terminate.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"

#include <string.h>

#define ATTEMPTS 2

struct td_terminate {
	struct td_aws_call *call;
	char *session_id;
	void (*done)(void *, const char *, bool);
	void *ctx;
};

static void terminate_free(struct td_terminate *t)
{
	tnl_free(t->session_id);
	tnl_free(t);
}

static void on_reply(void *ctx, const struct td_aws_reply *r)
{
	struct td_terminate *t = ctx;
	bool ok = !r->err || strcmp(r->type, "DoesNotExistException") == 0;

	if (!ok)
		td_warn("client", t->session_id, "TerminateSession failed error=\"%s\" text=\"%s\"",
			r->type[0] ? r->type : tnl_err_text(r->err), r->text ? r->text : "");
	if (t->done)
		t->done(t->ctx, t->session_id, ok);
	terminate_free(t);
}

struct td_terminate *td_terminate_start(struct td_aws *aws, const char *session_id,
					void (*done)(void *ctx, const char *session_id, bool ok), void *ctx)
{
	struct td_terminate *t = tnl_calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->done = done;
	t->ctx = ctx;
	t->session_id = tnl_strdup(session_id);
	if (t->session_id)
		t->call = td_session_call(aws, "AmazonSSM.TerminateSession", session_id, ATTEMPTS, on_reply, t);
	if (!t->call) {
		terminate_free(t);
		return NULL;
	}
	return t;
}

void td_terminate_cancel(struct td_terminate *t)
{
	if (!t)
		return;
	td_aws_call_cancel(t->call);
	terminate_free(t);
}
