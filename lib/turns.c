#include "lib/turns.h"
#include "lib/num.h"

void tnl_turns_init(struct tnl_turns *q, bool (*ready)(const struct tnl_turn *t))
{
	tnl_list_init(&q->fresh);
	tnl_list_init(&q->old);
	q->quantum = TNL_TURNS_QUANTUM;
	q->ready = ready;
}

void tnl_turns_set_quantum(struct tnl_turns *q, size_t bytes)
{
	q->quantum = (int64_t)TNL_MIN(bytes, (size_t)TNL_TURNS_QUANTUM);
}

void tnl_turn_init(struct tnl_turn *t)
{
	tnl_list_init(&t->link);
	t->place = TNL_TURN_NONE;
	t->spent = false;
	t->left = 0;
}

void tnl_turns_join(struct tnl_turns *q, struct tnl_turn *t)
{
	if (t->place != TNL_TURN_NONE)
		return;
	t->place = TNL_TURN_NEW;
	t->spent = false;
	t->left = q->quantum;
	tnl_list_push_back(&q->fresh, &t->link);
}

void tnl_turns_return(struct tnl_turns *q, struct tnl_turn *t)
{
	if (t->place != TNL_TURN_NONE)
		return;
	t->place = TNL_TURN_OLD;
	if (t->left <= 0)
		t->left += q->quantum;
	tnl_list_push_back(&q->old, &t->link);
}

void tnl_turns_leave(struct tnl_turn *t)
{
	tnl_list_remove(&t->link);
	t->place = TNL_TURN_NONE;
}

static void to_old(struct tnl_turns *q, struct tnl_turn *t)
{
	tnl_list_remove(&t->link);
	tnl_list_push_back(&q->old, &t->link);
	t->place = TNL_TURN_OLD;
}

struct tnl_turn *tnl_turns_next(struct tnl_turns *q)
{
	for (;;) {
		struct tnl_list *l = !tnl_list_empty(&q->fresh) ? &q->fresh : &q->old;
		if (tnl_list_empty(l))
			return NULL;
		struct tnl_turn *t = tnl_container_of(l->next, struct tnl_turn, link);
		if (!q->ready(t)) {
			/* One that ran dry passes through the old list once, or it could
			 * starve that list by coming back as new each time. */
			if (t->place == TNL_TURN_NEW && !tnl_list_empty(&q->old))
				to_old(q, t);
			else
				tnl_turns_leave(t);
		} else if (t->left <= 0) {
			t->left += q->quantum;
			to_old(q, t);
		} else {
			return t;
		}
	}
}

struct tnl_turn *tnl_turns_newcomer(struct tnl_turns *q)
{
	if (tnl_list_empty(&q->fresh) || tnl_list_empty(&q->old))
		return NULL;
	struct tnl_turn *t = tnl_turns_next(q);
	return t && t->place == TNL_TURN_NEW && !t->spent ? t : NULL;
}

void tnl_turn_charge(struct tnl_turn *t, size_t n)
{
	t->spent = true;
	t->left -= (int64_t)n;
}
