/* Look-ups of targets: a bounded table of what was found, in the [aws] block that asked, and who waits for a search. */
#include "tunneld/aws/target.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/num.h"
#include "tunneld/aws/instances.h"
#include "tunneld/aws/internal.h"

#include <stdio.h>
#include <string.h>

#define KEPT_NS (30 * TD_SEC)
enum { LOOKUPS_MAX = 64, ID_MAX = 400, LISTED = 10 };

struct lookup {
	struct tnl_list node; /* in its block's, the latest last */
	struct tnl_target target;
	struct td_instances found; /* empty: nothing is known */
	uint64_t at;
	struct td_instances_search *search;
	struct tnl_list waiting;
};

struct td_target_request {
	struct tnl_list node; /* in its lookup's waiting, until there is an answer */
	struct lookup *lookup;
	struct td_aws *aws;
	struct td_target_query q;
	struct td_soon tell;
	struct td_target_answer answer;
	char id[ID_MAX + 1], type[96], text[700];
	td_target_fn *fn;
	void *ctx;
};

/* --- the table -------------------------------------------------------------------------------------- */

static void lookup_free(struct lookup *l)
{
	td_instances_cancel(l->search);
	td_instances_fini(&l->found);
	tnl_list_remove(&l->node);
	tnl_free(l);
}

static bool is_idle(const struct lookup *l)
{
	return !l->search && tnl_list_empty(&l->waiting);
}

static void forget(struct td_aws *a)
{
	tnl_list_foreach_safe(it, &a->lookups)
		lookup_free(tnl_container_of(it, struct lookup, node));
}

/* The oldest that nobody waits for. */
static void make_room(struct td_aws *a)
{
	tnl_list_foreach_safe(it, &a->lookups) {
		struct lookup *l = tnl_container_of(it, struct lookup, node);
		if (a->nlookups < LOOKUPS_MAX)
			return;
		if (!is_idle(l))
			continue;
		lookup_free(l);
		a->nlookups--;
	}
}

static struct lookup *lookup_of(struct td_aws *a, const char *target)
{
	if (!a->forget)
		tnl_list_init(&a->lookups);
	a->forget = forget;
	tnl_list_foreach(it, &a->lookups) {
		struct lookup *l = tnl_container_of(it, struct lookup, node);
		if (strcmp(l->target.text, target) == 0)
			return l;
	}
	make_room(a);
	struct lookup *l = tnl_calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	tnl_list_init(&l->waiting);
	tnl_list_push_back(&a->lookups, &l->node);
	a->nlookups++;
	if (tnl_target_parse(target, strlen(target), &l->target, NULL) == 0)
		return l;
	lookup_free(l);
	a->nlookups--;
	return NULL;
}

/* --- one of them ------------------------------------------------------------------------------------ */

static bool is_word_of(const char *words, const char *word)
{
	size_t n = strlen(word);
	for (const char *p = words; p && *p; p += strspn(p, " ")) {
		size_t k = strcspn(p, " ");
		if (k == n && memcmp(p, word, n) == 0)
			return true;
		p += k;
	}
	return false;
}

static const struct td_instance *newest_of(const struct td_instances *f, const char *tried)
{
	const struct td_instance *best = NULL;
	for (size_t i = 0; i < f->n; i++)
		if (!is_word_of(tried, f->v[i].id) && (!best || f->v[i].since_ms > best->since_ms))
			best = &f->v[i];
	return best;
}

static const struct td_instance *any_of(const struct td_instances *f, const char *tried)
{
	const struct td_instance *it = NULL;
	uint32_t seen = 0, r;
	for (size_t i = 0; i < f->n; i++) {
		if (is_word_of(tried, f->v[i].id))
			continue;
		tnl_random(&r, sizeof(r));
		if (r % ++seen == 0)
			it = &f->v[i];
	}
	return it;
}

static void list_matches(struct td_target_request *r, const struct lookup *l)
{
	const struct td_instances *f = &l->found;
	size_t n =
	    (size_t)snprintf(r->text, sizeof(r->text), "%s matches %s%zu instances, and select = only:", l->target.text,
			     f->more ? "at least " : "", f->n);
	for (size_t i = 0; i < f->n && i < LISTED && n < sizeof(r->text); i++)
		n += (size_t)snprintf(r->text + n, sizeof(r->text) - n, "%s %s%s%s%s", i ? "," : "", f->v[i].id,
				      *f->v[i].name ? " (" : "", f->v[i].name, *f->v[i].name ? ")" : "");
	if (f->n > LISTED && n < sizeof(r->text))
		snprintf(r->text + n, sizeof(r->text) - n, ", …");
	r->answer.err = TNL_ECONF;
}

static void not_connected(struct td_target_request *r, const struct lookup *l, bool had)
{
	snprintf(r->type, sizeof(r->type), "TargetNotConnected");
	snprintf(r->text, sizeof(r->text),
		 had ? "no other instance that is online matches %s" : "no instance that is online matches %s",
		 l->target.text);
	r->answer.err = TNL_EREFUSED;
}

static void choose(struct td_target_request *r, const struct lookup *l)
{
	const struct td_instances *f = &l->found;
	r->answer =
	    (struct td_target_answer){.type = r->type, .text = r->text, .id = r->id, .call = "looking up the target"};
	r->text[0] = r->type[0] = r->id[0] = '\0';
	if (r->q.select == TD_SELECT_ONLY && (f->n > 1 || (f->n && f->more))) {
		list_matches(r, l);
		return;
	}
	const struct td_instance *i = r->q.select == TD_SELECT_ANY ? any_of(f, r->q.tried) : newest_of(f, r->q.tried);
	if (i && strlen(i->id) <= ID_MAX)
		snprintf(r->id, sizeof(r->id), "%s", i->id);
	else
		not_connected(r, l, f->n > 0);
}

static void take_fault(struct td_target_request *r, const char *call, const struct td_aws_reply *reply)
{
	snprintf(r->type, sizeof(r->type), "%s", reply->type);
	snprintf(r->text, sizeof(r->text), "%s", reply->text ? reply->text : "");
	r->answer = (struct td_target_answer){.err = reply->err,
					      .type = r->type,
					      .cred = reply->cred,
					      .status = reply->status,
					      .id = "",
					      .call = call,
					      .text = r->text};
}

/* --- asking ----------------------------------------------------------------------------------------- */

static void leave(struct td_target_request *r)
{
	if (!r->lookup)
		return;
	tnl_list_remove(&r->node);
	if (tnl_list_empty(&r->lookup->waiting)) { /* nobody wants it any more */
		td_instances_cancel(r->lookup->search);
		r->lookup->search = NULL;
	}
	r->lookup = NULL;
}

static void request_free(struct td_target_request *r)
{
	td_soon_cancel(&r->tell);
	leave(r);
	td_aws_free(r->aws);
	tnl_free(r);
}

void td_target_cancel(struct td_target_request *r)
{
	if (r)
		request_free(r);
}

static void tell(void *arg)
{
	struct td_target_request *r = arg;
	r->fn(r->ctx, &r->answer);
	request_free(r);
}

static void on_found(void *ctx, const char *call, const struct td_aws_reply *reply, struct td_instances *list)
{
	struct lookup *l = ctx;
	l->search = NULL;
	td_instances_fini(&l->found);
	if (!reply->err) {
		l->found = *list;
		*list = (struct td_instances){0};
	}
	tnl_list_foreach_safe(it, &l->waiting) {
		struct td_target_request *r = tnl_container_of(it, struct td_target_request, node);
		l->at = r->aws->loop->now;
		if (reply->err)
			take_fault(r, call, reply);
		else
			choose(r, l);
		tnl_list_remove(&r->node);
		r->lookup = NULL;
		td_soon_do(&r->tell);
	}
}

static bool start(struct td_target_request *r)
{
	struct lookup *l = lookup_of(r->aws, r->q.target);
	if (!l)
		return false;
	if (!l->search && !r->q.fresh && l->found.n && r->aws->loop->now - l->at < KEPT_NS) {
		choose(r, l);
		td_soon_do(&r->tell);
		return true;
	}
	tnl_list_push_back(&l->waiting, &r->node);
	r->lookup = l;
	if (!l->search)
		l->search = td_instances_search(r->aws, &l->target, true, on_found, l);
	return l->search != NULL;
}

struct td_target_request *td_target_ask(struct td_aws *a, const struct td_target_query *q, td_target_fn *fn, void *ctx)
{
	struct td_target_request *r = tnl_calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->aws = td_aws_ref(a);
	r->q = *q;
	r->fn = fn;
	r->ctx = ctx;
	td_soon_init(&r->tell, a->loop, tell, r);
	if (!start(r)) {
		request_free(r);
		return NULL;
	}
	return r;
}
