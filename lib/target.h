/* A target as it is written: an id, or how to find one.
 *
 *   i-…, mi-…, ecs:CLUSTER_TASK_RUNTIMEID      an id
 *   tag:KEY=VALUE[,KEY=VALUE…]                 the instance that has all these tags
 *   name:HOST                                  the one that calls itself so
 *   ecs:CLUSTER/SERVICE[/CONTAINER]            a container of a task of the service
 *
 * Several stand in a list with commas between them; a part of it that is KEY=VALUE belongs to the tag: before it. */
#ifndef TNL_TARGET_H
#define TNL_TARGET_H
#include "lib/err.h"
#include <stddef.h>

enum tnl_target_kind { TNL_TARGET_ID, TNL_TARGET_TAG, TNL_TARGET_NAME, TNL_TARGET_ECS };
enum { TNL_TARGET_TEXT = 1024, TNL_TARGET_TAGS = 8, TNL_TARGET_LIST = 8, TNL_TARGET_KEY = 128, TNL_TARGET_VALUE = 256 };

struct tnl_target { /* holds pointers into itself: not to be copied */
	enum tnl_target_kind kind;
	char text[TNL_TARGET_TEXT]; /* all of it, without blanks around its parts */
	unsigned ntags;
	struct {
		const char *key, *value;
	} tag[TNL_TARGET_TAGS];
	const char *name;
	const char *cluster, *service, *container; /* container may be NULL */
	char parts[TNL_TARGET_TEXT];		   /* what they point into */
};
/* 0, or TNL_ESYNTAX and what is wrong. */
int tnl_target_parse(const char *s, size_t n, struct tnl_target *t, const char **fault) TNL_MUST_USE;
/* The next of a list at *s (n bytes, perhaps none), which is behind it then; NULL: there is no more. */
const char *tnl_target_next(const char **s, size_t *n);

#endif
