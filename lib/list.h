/* Intrusive circular doubly linked list. */
#ifndef TNL_LIST_H
#define TNL_LIST_H
#if defined(TNL_FUZZING) || defined(__SANITIZE_ADDRESS__)
#include "lib/steps.h"
#endif
#include <stdbool.h>
#include <stddef.h>

struct tnl_list {
	struct tnl_list *prev, *next;
};

static inline void tnl_list_init(struct tnl_list *l)
{
	l->prev = l->next = l;
}
static inline bool tnl_list_empty(const struct tnl_list *l)
{
	return l->next == l;
}
static inline void tnl_list_insert_before(struct tnl_list *at, struct tnl_list *n)
{
	n->prev = at->prev;
	n->next = at;
	at->prev->next = n;
	at->prev = n;
}
static inline void tnl_list_push_back(struct tnl_list *l, struct tnl_list *n)
{
	tnl_list_insert_before(l, n);
}
static inline void tnl_list_push_front(struct tnl_list *l, struct tnl_list *n)
{
	tnl_list_insert_before(l->next, n);
}
/* Unlinks and re-initialises n; safe on an initialised node that is in no list. */
static inline void tnl_list_remove(struct tnl_list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	tnl_list_init(n);
}
/* Moves everything from `from` to the end of l. */
static inline void tnl_list_splice_back(struct tnl_list *l, struct tnl_list *from)
{
	if (tnl_list_empty(from))
		return;
	from->next->prev = l->prev;
	l->prev->next = from->next;
	from->prev->next = l;
	l->prev = from->prev;
	tnl_list_init(from);
}
#define tnl_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
/* Where fuzzers and sanitizers look, each node that is visited is a step (lib/steps.h). */
static inline struct tnl_list *tnl_list_visit(struct tnl_list *it)
{
#if defined(TNL_FUZZING) || defined(__SANITIZE_ADDRESS__)
	tnl_step();
#endif
	return it;
}
#define tnl_list_foreach(it, l) for (struct tnl_list *it = (l)->next; it != (l); it = tnl_list_visit(it)->next)
#define tnl_list_foreach_safe(it, l)                                                                                   \
	for (struct tnl_list *it = (l)->next, *it##_n = it->next; it != (l);                                           \
	     it = tnl_list_visit(it##_n), it##_n = it->next)

#endif
