/* Between the config_*.c files only. */
#ifndef TD_CONFIG_INTERNAL_H
#define TD_CONFIG_INTERNAL_H
#include "tunneld/config/config.h"
#include <stddef.h>

enum td_section {
	TD_SEC_TUNNELD,
	TD_SEC_AWS,
	TD_SEC_TUNNEL,
	TD_SEC_ALIAS,
	TD_SEC_AGENT,
	TD_SEC_GATEWAY,
	TD_SEC_USER,
	TD_SEC_INSTANCE,
	TD_SEC_COUNT
};
#define TD_IN(sec) (1u << TD_SEC_##sec)
#define TD_IN_AWS_KEYS (TD_IN(AWS) | TD_IN(TUNNEL) | TD_IN(ALIAS) | TD_IN(AGENT))

struct td_section_kind {
	const char *word;
	bool named;
	const char *help;
};
extern const struct td_section_kind td_sections[TD_SEC_COUNT];

enum td_opt_type {
	TD_T_TEXT,    /* char *: one line of text */
	TD_T_ID,      /* char *: no white space */
	TD_T_KEYID,   /* char *: no white space, slash or comma: it stands in a credential scope */
	TD_T_REGION,  /* char *: letters, digits, - */
	TD_T_TARGET,  /* char *: i-…, mi-…, ecs:… */
	TD_T_PATH,    /* char *: made absolute */
	TD_T_FILE,    /* the same; must be readable */
	TD_T_KEYFILE, /* the same; and must be private */
	TD_T_STORE,   /* char *: sqlite:PATH */
	TD_T_URL,     /* char *: https://HOST[:PORT] */
	TD_T_PROXY,   /* char *: http[s]://[USER:PASSWORD@]HOST:PORT or none */
	TD_T_HOST,    /* char *: name or address */
	TD_T_DURATION,
	TD_T_SIZE,     /* uint64_t */
	TD_T_SIZE32,   /* unsigned */
	TD_T_UINT,     /* unsigned */
	TD_T_PORT,     /* uint16_t */
	TD_T_BOOL,     /* bool */
	TD_T_TRI,      /* int, -1 not set */
	TD_T_WORD,     /* enum, index in `words` */
	TD_T_WORDBOOL, /* bool, index in `words` */
	TD_T_SESSION,  /* shared | per-connection | pool N, in a td_tunnel_config */
	TD_T_LIST,     /* struct td_strlist */
	TD_T_LISTEN,   /* struct td_strlist and addresses */
	TD_T_RULES     /* struct td_rules */
};
enum { TD_F_REQUIRED = 1, TD_F_SECRET = 2, TD_F_AWS = 4 /* off is in td_aws_config */ };

struct td_opt {
	unsigned in; /* TD_IN() of the sections that may have it */
	const char *key;
	enum td_opt_type type;
	size_t off;
	const char *dflt;  /* in the file's spelling, or NULL */
	uint64_t lo, hi;   /* bounds of numbers, durations (ns) and sizes */
	const char *words; /* a|b|c */
	unsigned flags;
	size_t set_off; /* bool that says "was in the file", or 0 */
	const char *help;
};
extern const struct td_opt td_opts[];
extern const int td_nopts;
const char *td_opt_type_text(const struct td_opt *o);

/* A section of the file that is being read. */
struct td_sec_rec {
	enum td_section kind;
	int index, line;
	char *name;
	int *key_line; /* by option, 0: absent */
};

struct td_cfg_parse {
	struct td_config *c;
	const char *file, *dir;
	struct td_note {
		int line;
		int order;
		bool warning;
		char *text;
	} * notes;
	int nnotes, nerrors;
	struct td_sec_rec *secs;
	int nsecs;
	struct td_sec_rec *cur; /* NULL: before the first, or in one that was refused */
	bool skipping;		/* in a refused section: its keys are not looked at */
	bool has_secret, files_are_errors;
};
void td_cfg_error(struct td_cfg_parse *p, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void td_cfg_warn(struct td_cfg_parse *p, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void *td_sec_base(struct td_config *c, enum td_section kind, int index, bool aws);
static inline bool td_opt_in(const struct td_opt *o, enum td_section kind)
{
	return o->in >> kind & 1;
}

int td_sec_line(const struct td_sec_rec *s, const char *key); /* 0: not in the file */

/* config_files.c */
struct stat;
bool td_cfg_others_can_read(const struct stat *st);
char *td_cfg_slurp(const char *path, size_t *len, struct stat *st,
		   const char **why); /* at most 1 MiB, NUL-terminated; NULL and *why */
void td_cfg_check_files(struct td_cfg_parse *p, const struct td_sec_rec *s); /* there, private, PEM, matching */
/* config_read.c: lines → sections and keys. */
void td_cfg_read(struct td_cfg_parse *p, const char *text, size_t len);
/* config_value.c */
bool td_value_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value);
void td_value_free(const struct td_opt *o, void *base);
bool td_value_same(const struct td_opt *o, const void *a, const void *b);
char *td_cfg_path(const char *dir, const char *path); /* absolute, heap */
bool td_cfg_digits(const char **s, uint64_t *v);      /* a number at *s; false: none, or it does not fit */
/* config_text.c: what is wrong with this text for this type, or NULL; *len may become shorter. */
const char *td_cfg_check_text(enum td_opt_type type, const char *v, size_t *len);
/* config_rules.c */
bool td_rules_parse(struct td_cfg_parse *p, int line, const char *key, const char *value, struct td_rules *out);
void td_rules_free(struct td_rules *r);
bool td_rules_same(const struct td_rules *a, const struct td_rules *b);
/* Memory for configuration; ends the process when there is none (libev does the same). */
void *td_cfg_alloc(size_t n);
void *td_cfg_grow(void *p, size_t n);
char *td_cfg_dup(const char *s, size_t n);

#endif
