/* A small file, a target a line. */
#include "tunneld/command/known.h"
#include "lib/alloc.h"
#include "lib/buf.h"
#include "tunneld/base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_CAP = 600, FILE_MAX = 256 << 10, KEPT = 2000 };

/* $XDG_CACHE_HOME/tunneld, else ~/.cache/tunneld; false: there is no home. */
static bool folder(char out[PATH_CAP])
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	int n = cache && cache[0] == '/' ? snprintf(out, PATH_CAP, "%s/tunneld", cache)
		: home && home[0] == '/' ? snprintf(out, PATH_CAP, "%s/.cache/tunneld", home)
					 : -1;
	return n > 0 && n < PATH_CAP - 20;
}

static void make_folders(char *path)
{
	for (char *slash = path; (slash = strchr(slash + 1, '/')) != NULL; *slash = '/') {
		*slash = '\0';
		mkdir(path, 0700);
	}
	mkdir(path, 0700);
}

/* One that the parser takes as it stands, and that breaks no line. */
static void put_target(struct tnl_buf *b, const char *scheme, const char *s)
{
	char text[TNL_TARGET_TEXT];
	struct tnl_target t;
	int n = snprintf(text, sizeof(text), "%s%s", scheme, s);
	if (n > 0 && (size_t)n < sizeof(text) && tnl_target_parse(text, (size_t)n, &t, NULL) == 0 && t.ntags < 2)
		tnl_buf_printf(b, "%s\n", t.text);
}

static void put_instance(struct tnl_buf *b, const struct td_instance *i)
{
	put_target(b, "", i->id);
	if (*i->computer)
		put_target(b, "name:", i->computer);
	for (const char *p = i->tags; *p; p += strspn(p, "\n")) {
		char tag[600];
		size_t n = strcspn(p, "\n");
		if (snprintf(tag, sizeof(tag), "%.*s", (int)n, p) < (int)sizeof(tag))
			put_target(b, "tag:", tag);
		p += n;
	}
}

void td_known_save(const struct td_instances *list)
{
	char path[PATH_CAP];
	struct tnl_buf b;
	if (!folder(path))
		return;
	make_folders(path);
	strcat(path, "/instances");
	tnl_buf_init(&b, FILE_MAX);
	for (size_t i = 0; i < list->n && i < KEPT; i++)
		put_instance(&b, &list->v[i]);
	int rc = td_file_write(path, tnl_buf_data(&b), tnl_buf_len(&b), 0);
	(void)rc; /* it is for convenience alone */
	tnl_buf_fini(&b);
}

void td_known_each(void (*fn)(void *ctx, const char *target), void *ctx)
{
	char path[PATH_CAP];
	size_t n;
	if (!folder(path))
		return;
	strcat(path, "/instances");
	char *text = td_file_read(path, FILE_MAX, 0, &n, NULL), *rest = text;
	for (char *line; text && (line = strsep(&rest, "\n")) != NULL;)
		if (*line)
			fn(ctx, line);
	tnl_free(text);
}
