/* The addresses of one service, tried in turn, with a memory of what worked.  A call asks for the one to begin with,
 * says what became of it, and asks for the next; nothing here opens a connection.
 *
 * In use is the one that worked last, the first of the list until then.  It is asked first, and stays when those before
 * it in the list are well again.  One that failed is passed over until a back-off with jitter is over; then its turn
 * may come again, behind the one in use.  When all have failed, the one whose failure is the oldest is asked. */
#include "tunneld/aws/addresses.h"

#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/http.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

#define OVER_MIN (2 * TD_SEC)
#define OVER_MAX (60 * TD_SEC)

struct address {
	char *url;
	struct td_backoff backoff;
	uint64_t failed_at, over_until; /* 0: it has not failed since it worked */
	char why[200];
};

struct td_addresses {
	struct td_loop *loop;
	unsigned n, in_use;
	uint64_t moves;
	char *list;
	struct address v[TD_ENDPOINTS_MAX];
};

/* --- making ------------------------------------------------------------------------------ */

static int add_address(struct td_addresses *a, const char *s, size_t n)
{
	while (n && (*s == ' ' || *s == '\t'))
		s++, n--;
	while (n && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		n--;
	while (n && s[n - 1] == '/')
		n--;
	if (a->n == TD_ENDPOINTS_MAX)
		return TNL_ETOOBIG;
	struct address *x = &a->v[a->n];
	x->url = tnl_strndup(s, n);
	if (!x->url)
		return TNL_ENOMEM;
	td_backoff_init(&x->backoff, OVER_MIN, OVER_MAX);
	a->n++;
	return 0;
}

int td_addresses_new(struct td_addresses **out, struct td_loop *l, const char *list)
{
	struct td_addresses *a = tnl_calloc(1, sizeof(*a));
	int rc = a && (a->list = tnl_strdup(list)) != NULL ? 0 : TNL_ENOMEM;

	*out = NULL;
	if (a)
		a->loop = l;
	while (rc == 0) {
		size_t n = strcspn(list, ",");
		rc = add_address(a, list, n);
		if (!list[n])
			break;
		list += n + 1;
	}
	if (rc == 0)
		*out = a;
	else
		td_addresses_free(a);
	return rc;
}

void td_addresses_free(struct td_addresses *a)
{
	if (!a)
		return;
	for (unsigned i = 0; i < a->n; i++)
		tnl_free(a->v[i].url);
	tnl_free(a->list);
	tnl_free(a);
}

/* --- looking -------------------------------------------------------------------------------- */

const char *td_addresses_list(const struct td_addresses *a)
{
	return a->list;
}

unsigned td_addresses_count(const struct td_addresses *a)
{
	return a->n;
}

const char *td_addresses_url(const struct td_addresses *a, unsigned i)
{
	return a->v[i].url;
}

unsigned td_addresses_in_use(const struct td_addresses *a)
{
	return a->in_use;
}

const char *td_addresses_trouble(const struct td_addresses *a, unsigned i)
{
	return a->v[i].over_until ? a->v[i].why : "";
}

uint64_t td_addresses_moves(const struct td_addresses *a)
{
	return a->moves;
}

/* A StreamUrl has a path behind it, and its scheme is wss. */
unsigned td_addresses_find(const struct td_addresses *a, const char *url)
{
	struct tnl_url wanted, u;
	const char *fault;

	if (tnl_url_parse(url, &wanted, &fault) != 0)
		return TD_ENDPOINTS_MAX;
	for (unsigned i = 0; i < a->n; i++)
		if (tnl_url_parse(a->v[i].url, &u, &fault) == 0 && u.port == wanted.port &&
		    tnl_ieq(u.host, wanted.host))
			return i;
	return TD_ENDPOINTS_MAX;
}

bool td_addresses_meet(const struct td_addresses *a, const struct td_addresses *b)
{
	for (unsigned i = 0; i < a->n; i++)
		if (td_addresses_find(b, a->v[i].url) < TD_ENDPOINTS_MAX)
			return true;
	return false;
}

/* --- whose turn it is --------------------------------------------------------------------------- */

static bool is_over(const struct td_addresses *a, unsigned i)
{
	return a->v[i].over_until > a->loop->now;
}

unsigned td_addresses_next(const struct td_addresses *a, unsigned tried)
{
	unsigned oldest = TD_ENDPOINTS_MAX;

	for (unsigned k = 0; k <= a->n; k++) { /* the one in use, then all in order */
		unsigned i = k ? k - 1 : a->in_use;
		if (tried & (1u << i))
			continue;
		if (!is_over(a, i))
			return i;
		if (oldest == TD_ENDPOINTS_MAX || a->v[i].failed_at < a->v[oldest].failed_at)
			oldest = i;
	}
	return oldest;
}

void td_addresses_failed(struct td_addresses *a, unsigned i, const char *why)
{
	struct address *x = &a->v[i];

	snprintf(x->why, sizeof(x->why), "%s", why);
	x->failed_at = a->loop->now;
	if (!is_over(a, i)) /* what was under way when it failed first does not make it worse */
		x->over_until = a->loop->now + td_backoff_next(&x->backoff);
	if (a->n > 1)
		td_debug("aws", NULL, "endpoint is passed over endpoint=%s for_ms=%llu error=\"%s\"", x->url,
			 (unsigned long long)((x->over_until - a->loop->now) / TD_MS), x->why);
}

void td_addresses_worked(struct td_addresses *a, unsigned i)
{
	const struct address *was = &a->v[a->in_use];

	a->v[i].over_until = a->v[i].failed_at = 0;
	td_backoff_forget(&a->v[i].backoff);
	/* A late answer of one that others have left for its failure does not bring them back. */
	if (i == a->in_use || !was->failed_at)
		return;
	td_warn("aws", NULL, "another endpoint is used from now on endpoint=%s before=%s error=\"%s\"", a->v[i].url,
		was->url, was->why);
	a->in_use = i;
	a->moves++;
}

void td_addresses_follow(struct td_addresses *a, const struct td_addresses *old)
{
	unsigned i = td_addresses_find(a, old->v[old->in_use].url);

	if (i == TD_ENDPOINTS_MAX || !old->moves)
		return;
	a->in_use = i;
	a->moves = old->moves;
}
