#include "tunneld/client/crowd.h"

#include "lib/num.h"
#include "tunneld/base/loop.h"

#define ALONE 4u	   /* sessions that do not yet share */
#define QUIET (1 * TD_SEC) /* bulk is told of twice as often */

/* Of all paths: who has had bulk lately, the last at the end; who is quiet and has kept links. */
static struct tnl_list crowd = {&crowd, &crowd}, keepers = {&keepers, &keepers};

void td_crowd_init(struct td_crowd_member *m)
{
	*m = (struct td_crowd_member){0};
	tnl_list_init(&m->node);
}

void td_crowd_leave(struct td_crowd_member *m)
{
	tnl_list_remove(&m->node);
}

static void drop_quiet(uint64_t now)
{
	while (!tnl_list_empty(&crowd)) {
		struct td_crowd_member *m = tnl_container_of(crowd.next, struct td_crowd_member, node);
		if (now - m->at < QUIET)
			return;
		tnl_list_remove(&m->node);
		if (m->keeps)
			tnl_list_push_back(&keepers, &m->node);
	}
}

void td_crowd_keep(struct td_crowd_member *m, bool keeps)
{
	m->keeps = keeps;
}

static unsigned count_in(const struct tnl_list *list, const void *path, unsigned enough)
{
	unsigned n = 0;
	tnl_list_foreach(it, list) {
		if (n >= enough)
			break;
		const struct td_crowd_member *m = tnl_container_of(it, struct td_crowd_member, node);
		n += m->path == path && (m->keeps || list == &crowd);
	}
	return n;
}

/* No more than `enough`: then each has one anyway. */
static unsigned count_on(const void *path, unsigned enough)
{
	unsigned n = count_in(&crowd, path, enough);
	return n + count_in(&keepers, path, enough - n);
}

unsigned td_crowd_links(struct td_crowd_member *m, const void *path, unsigned most, uint64_t now)
{
	tnl_list_remove(&m->node);
	drop_quiet(now);
	m->path = path;
	m->at = now;
	tnl_list_push_back(&crowd, &m->node);
	unsigned in_all = ALONE * most;
	return TNL_MIN(most, in_all / TNL_MAX(count_on(path, in_all), 1u));
}
