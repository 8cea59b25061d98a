/* Whom a client session is for: its targets are tried in their order, and one that says how to find an instance is
 * looked up before each StartSession, and once more when what was found is not connected.  A session that has begun
 * stays where it is. */
#include "tunneld/client/internal.h"

#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

enum { LOOK_UPS = 4 }; /* of one entry, before the next has its turn */

static void to_entry(struct td_client *c, const char *list)
{
	struct td_client_find *f = &c->find;
	f->rest = list;
	f->at = tnl_target_next(&f->rest, &f->n);
	f->asked = 0;
	f->tried[0] = f->id[0] = '\0';
}

static void on_answer(void *ctx, const struct td_target_answer *a)
{
	struct td_client *c = ctx;
	struct td_aws_reply r = {.err = a->err, .cred = a->cred, .status = a->status, .text = a->text};
	c->find.ask = NULL;
	if (a->err) {
		c->find.id[0] = '\0';
		snprintf(r.type, sizeof(r.type), "%s", a->type);
		td_client_start_refused(c, a->call, &r);
		return;
	}
	c->needs_login = false;
	snprintf(c->find.id, sizeof(c->find.id), "%s", a->id);
	td_info(MOD, NULL, "target found %-s query=%.*s target=%s", c->cfg.label, (int)c->find.n, c->find.at, a->id);
	td_client_start_session(c);
}

static void look_up(struct td_client *c, const struct tnl_target *t)
{
	struct td_target_query q = {.target = t->text,
				    .select = c->cfg.select,
				    .fresh = c->find.asked == 1,
				    .tried = c->find.tried};
	c->find.asked++;
	c->find.ask = td_target_ask(c->cfg.aws, &q, on_answer, c);
	if (!c->find.ask)
		td_client_fail(c, TNL_ENOMEM, "", "out of memory");
}

void td_client_find(struct td_client *c)
{
	const char *fault = NULL;
	struct tnl_target t;
	if (!c->find.at)
		to_entry(c, c->cfg.target);
	if (!c->find.at || tnl_target_parse(c->find.at, c->find.n, &t, &fault) != 0) {
		td_client_fail(c, TNL_ECONF, "", fault ? fault : "there is no target");
		return;
	}
	if (t.kind != TNL_TARGET_ID) {
		look_up(c, &t);
		return;
	}
	snprintf(c->find.id, sizeof(c->find.id), "%.*s", TD_CLIENT_TARGET - 1, t.text);
	td_client_start_session(c);
}

/* It was found, but is not there: true: whatever else matches is worth a look. */
static bool try_again(struct td_client *c)
{
	struct td_client_find *f = &c->find;
	size_t n = strlen(f->tried);
	if (!f->asked || f->asked >= LOOK_UPS || !f->id[0])
		return false;
	snprintf(f->tried + n, sizeof(f->tried) - n, "%s ", f->id);
	return true;
}

bool td_client_find_next(struct td_client *c)
{
	struct td_client_find *f = &c->find;
	if (try_again(c)) {
		td_info(MOD, NULL, "target is not connected, looked up again %-s query=%.*s target=%s", c->cfg.label,
			(int)f->n, f->at, f->id);
		td_client_find(c);
		return true;
	}
	if (f->rest) {
		td_warn(MOD, NULL, "target is not connected, the next one is tried %-s target=%.*s", c->cfg.label,
			(int)f->n, f->at);
		to_entry(c, f->rest);
		td_client_find(c);
		return true;
	}
	f->at = NULL;
	return false;
}

void td_client_find_cancel(struct td_client *c)
{
	td_target_cancel(c->find.ask);
	c->find.ask = NULL;
}
