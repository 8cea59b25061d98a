/* Private to tunneld/config.  From below: notes (mistakes, where they are, memory) and section (where the values lie);
 * number, text, rules; value (what a type can do); options (the keys); life, copy; patterns, read, include, files,
 * check, ranges; config on top. */
#ifndef TD_CONFIG_INTERNAL_H
#define TD_CONFIG_INTERNAL_H
#include "lib/map.h"
#include "tunneld/config/config.h"
#include <stddef.h>

/* --- sections ------------------------------------------------------------------ */

enum td_section {
	TD_SECTION_TUNNELD,
	TD_SECTION_AWS,
	TD_SECTION_TUNNEL,
	TD_SECTION_ALIAS,
	TD_SECTION_AGENT,
	TD_SECTION_GATEWAY,
	TD_SECTION_USER,
	TD_SECTION_INSTANCE,
	TD_SECTION_COUNT
};
#define TD_IN(section) (1u << TD_SECTION_##section)
/* Sections whose objects hold a struct td_aws_config. */
#define TD_IN_AWS_KEYS (TD_IN(AWS) | TD_IN(TUNNEL) | TD_IN(ALIAS) | TD_IN(AGENT))

/* Where the values of a kind of section lie.  Of a named one there may be several: an array that grows in struct
 * td_config, the name and the line in each of its objects. */
struct td_section_kind {
	const char *word, *shown; /* "tunnel", "tunnel NAME" */
	bool named;
	size_t off;	    /* in struct td_config: the object, or the pointer to the array */
	size_t count, size; /* named: how many there are (an int in struct td_config), and of how many bytes */
	size_t name, line;  /* named: in the object */
	size_t aws;	    /* in the object, when the section is in TD_IN_AWS_KEYS */
	size_t has;	    /* bool in struct td_config: "there is one"; 0: nobody asks */
};
extern const struct td_section_kind td_sections[TD_SECTION_COUNT];

/* One object of a section. */
struct td_place {
	void *own;
	struct td_aws_config *aws; /* in it; NULL: it has none */
};
int td_section_count(const struct td_config *c, enum td_section kind); /* 1 when it is not a named one */
struct td_place td_section_place(struct td_config *c, enum td_section kind, int index);
char **td_section_name(struct td_config *c, enum td_section kind, int index);		   /* NULL: not a named one */
int td_section_add(struct td_config *c, enum td_section kind, const char *name, int line); /* gives its index */
void td_section_drop(struct td_config *c, enum td_section kind); /* names and array; the values are cleared */

/* --- options and their types ------------------------------------------------------ */

enum td_opt_type {
	TD_T_TEXT,     /* char *: one line of text */
	TD_T_ID,       /* char *: no white space */
	TD_T_SECRET,   /* char *: no white space, and not what the samples have */
	TD_T_KEYID,    /* char *: no white space, slash or comma: it stands in a credential scope */
	TD_T_REGION,   /* char *: letters, digits, - */
	TD_T_TARGET,   /* char *: i-…, mi-…, ecs:… */
	TD_T_FIND,     /* char *: an id, tag:…, name:…, ecs:… */
	TD_T_FINDS,    /* the same field: a list of them */
	TD_T_TAGS,     /* struct td_strlist: KEY=VALUE */
	TD_T_PATH,     /* char *: made absolute */
	TD_T_FILE,     /* the same; must be readable */
	TD_T_KEYFILE,  /* the same; and nobody else may read it */
	TD_T_SECRETF,  /* the same; a name is looked up in $CREDENTIALS_DIRECTORY first */
	TD_T_AUDIT,    /* char *: a path, or syslog */
	TD_T_STORE,    /* char *: sqlite:PATH, or the URL of a Redis server */
	TD_T_PEER,     /* char *: ADDRESS:PORT, none of them a wildcard */
	TD_T_NODE,     /* char *: letters, digits, _ */
	TD_T_URL,      /* char *: https://HOST[:PORT] */
	TD_T_URLS,     /* char *: a list of them, with commas alone between them */
	TD_T_PROXY,    /* char *: http[s]://[USER:PASSWORD@]HOST:PORT or none */
	TD_T_HOST,     /* char *: name or address */
	TD_T_DIRECT,   /* char *: ADDRESS:PORT */
	TD_T_BIND,     /* char *: ADDRESS:PORT or unix:PATH */
	TD_T_CONNECT,  /* char *: HOST:PORT or unix:PATH */
	TD_T_DURATION, /* uint64_t, ns */
	TD_T_SIZE,     /* uint64_t */
	TD_T_SIZE32,   /* unsigned */
	TD_T_UINT,     /* unsigned */
	TD_T_PORT,     /* uint16_t */
	TD_T_PLACE,    /* port (uint16_t), ports and path of a td_tunnel_config */
	TD_T_MODE,     /* unsigned, octal */
	TD_T_USERS,    /* struct td_users: a private file */
	TD_T_BOOL,     /* bool */
	TD_T_TRI,      /* int, -1 not set */
	TD_T_WORD,     /* enum, index in `words` */
	TD_T_WORDBOOL, /* bool, index in `words` */
	TD_T_SESSION,  /* shared | per-connection | pool N, in a td_tunnel_config */
	TD_T_LIST,     /* struct td_strlist */
	TD_T_PORTS,    /* the same: PORT, LOW-HIGH, or a pattern of digits */
	TD_T_LISTEN,   /* listen, addrs and naddrs of a td_tunnel_config */
	TD_T_ADDRS,    /* struct td_addr *, and an int behind it: how many */
	TD_T_RULES,    /* struct td_rules */
	TD_T_CIDRS,    /* struct td_cidrs */
	TD_T_COUNT
};

enum {
	TD_F_REQUIRED = 1,
	TD_F_SECRET = 2,  /* never shown, wiped when it goes; others should not be able to read the file */
	TD_F_IF_USER = 4, /* with SECRET: others may read the file unless there is a user in it (@) */
	TD_F_AWS = 8	  /* off is in struct td_aws_config */
};

/* Keys of [aws] that are inherited all or none: half of one and half of another would be neither. */
enum td_opt_group { TD_GROUP_NONE, TD_GROUP_CREDENTIALS, TD_GROUP_CERTIFICATE, TD_GROUP_COUNT };

struct td_opt {
	const char *key;
	unsigned in; /* TD_IN() of the sections that may have it */
	const struct td_type *type;
	size_t off;	     /* of the value in the section's object; 0 for LISTEN and ADDRS */
	const char *dflt;    /* in the file's spelling, or NULL */
	uint64_t lo, hi;     /* bounds of numbers, durations (ns) and sizes */
	const char *words;   /* a|b|c */
	const char *instead; /* required: but for this key in its place */
	unsigned flags;
	enum td_opt_group group;
	size_t set_off; /* bool that says "was in the file", or 0 */
	const char *help;
};
extern const struct td_opt td_opts[];
extern const int td_nopts;
/* The first option of such a section behind `o` (NULL: the first of all); NULL: no more. */
const struct td_opt *td_opt_next(enum td_section kind, const struct td_opt *o);
const struct td_opt *td_opt_find(enum td_section kind, const char *key);
static inline bool td_opt_in(const struct td_opt *o, enum td_section kind)
{
	return o->in >> kind & 1;
}
/* What the verbs of its type take: where the values of the option's structure begin. */
static inline void *td_opt_base(const struct td_opt *o, struct td_place at)
{
	return o->flags & TD_F_AWS ? at.aws : at.own;
}

#define TD_NUMBER_STR 32 /* for a number, a duration or a size as text */
struct td_cfg_parse;
/* What can be done with a value of a type.  base: the structure that o->off counts from. */
struct td_type {
	const char *name; /* for listings; NULL: the option's words */
	bool may_be_empty;
	/* Takes the text, or says what is wrong with it.  What was there is not freed: clear first. */
	bool (*set)(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value);
	/* Frees; as if it had never been set.  NULL: nothing to do. */
	void (*clear)(const struct td_opt *o, void *base);
	bool (*same)(const struct td_opt *o, const void *a, const void *b);
	/* When it is not set: a copy of what `from` has.  NULL: no key of [aws] has this type. */
	void (*inherit)(const struct td_opt *o, void *base, const void *from);
	/* texts */
	bool is_file, is_private;			      /* it must be readable; and by nobody else */
	const char *(*fault)(const char *value, size_t *len); /* what is wrong, or NULL; *len may become shorter */
	char *(*keep)(const struct td_cfg_parse *p, const char *value); /* what is kept of it; NULL: the text */
	/* scalars */
	size_t size;					   /* bytes of the field */
	int (*number)(const char *value, uint64_t *v);	   /* TNL_ESYNTAX, TNL_ELIMIT */
	void (*show)(uint64_t v, char out[TD_NUMBER_STR]); /* a bound, for people */
	const char *needs;				   /* what to say when the text is no such number */
};
extern const struct td_type td_types[TD_T_COUNT];
/* value.c: the verbs, whatever the type. */
bool td_value_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value);
void td_value_clear(const struct td_opt *o, void *base);
bool td_value_same(const struct td_opt *o, const void *a, const void *b);
/* number.c */
bool td_number_digits(const char **s, uint64_t *v);  /* a number at *s; false: none, or it does not fit */
int td_number_duration(const char *s, uint64_t *ns); /* 10s, 150ms, 1h30m; a unit is required, but 0 may stand alone */
int td_number_size(const char *s, uint64_t *bytes);  /* 16M, 64K, 1G, 1024 */
int td_number_plain(const char *s, uint64_t *v);
/* ADDRESS:LOW-HIGH, LOW-HIGH: *n ports, and the text with the first of them alone; else one, and the text. NULL, or
 * what is wrong. */
const char *td_number_ports(const char *text, char *first, size_t cap, unsigned *n);
void td_number_show_duration(uint64_t ns, char out[TD_NUMBER_STR]);
void td_number_show_size(uint64_t bytes, char out[TD_NUMBER_STR]);
void td_number_show_plain(uint64_t v, char out[TD_NUMBER_STR]);
bool td_number_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value);
int td_number_octal(const char *s, uint64_t *v);
void td_number_show_octal(uint64_t v, char out[TD_NUMBER_STR]);
/* place.c: PORT or unix:PATH */
bool td_place_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value);
void td_place_clear(const struct td_opt *o, void *base);
bool td_place_same(const struct td_opt *o, const void *a, const void *b);
void td_place_inherit(const struct td_opt *o, void *base, const void *from);
/* users.c */
bool td_users_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value);
void td_users_clear(const struct td_opt *o, void *base);
void td_users_inherit(const struct td_opt *o, void *base, const void *from);
bool td_users_same(const struct td_opt *o, const void *a, const void *b);
/* text.c */
bool td_text_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value);
void td_text_clear(const struct td_opt *o, void *base);
bool td_text_same(const struct td_opt *o, const void *a, const void *b);
void td_text_inherit(const struct td_opt *o, void *base, const void *from);
const char *td_text_id_fault(const char *value, size_t *len);
const char *td_text_secret_fault(const char *value, size_t *len);
const char *td_text_keyid_fault(const char *value, size_t *len);
const char *td_text_region_fault(const char *value, size_t *len);
const char *td_text_target_fault(const char *value, size_t *len);
const char *td_text_store_fault(const char *value, size_t *len);
const char *td_text_peer_fault(const char *value, size_t *len);
const char *td_text_node_fault(const char *value, size_t *len);
const char *td_text_url_fault(const char *value, size_t *len);
const char *td_text_proxy_fault(const char *value, size_t *len);
const char *td_text_direct_fault(const char *value, size_t *len);
const char *td_text_bind_fault(const char *value, size_t *len);
const char *td_text_connect_fault(const char *value, size_t *len);
const char *td_text_host_fault(const char *value, size_t *len);
const char *td_text_find_fault(const char *value, size_t *len);
const char *td_text_finds_fault(const char *value, size_t *len);
char *td_text_keep_finds(const struct td_cfg_parse *p, const char *value);
char *td_text_keep_path(const struct td_cfg_parse *p, const char *value);
char *td_text_keep_credential(const struct td_cfg_parse *p, const char *value);
char *td_text_keep_audit(const struct td_cfg_parse *p, const char *value);
char *td_text_keep_store(const struct td_cfg_parse *p, const char *value);
char *td_text_path(const char *dir, const char *path); /* absolute, heap */
/* rules.c */
bool td_rules_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value);
void td_rules_clear(const struct td_opt *o, void *base);
void td_rules_inherit(const struct td_opt *o, void *base, const void *from);
bool td_rules_same(const struct td_opt *o, const void *a, const void *b);
bool td_cidrs_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value);
void td_cidrs_clear(const struct td_opt *o, void *base);
bool td_cidrs_same(const struct td_opt *o, const void *a, const void *b);

/* --- one file that is being read ----------------------------------------------------- */

/* A section of the file. */
struct td_section_read {
	enum td_section kind;
	int index, line;
	char *name;
	int *key_line; /* by option, 0: absent */
};
int td_opt_line(const struct td_section_read *s, const char *key); /* 0: not in the file */

struct td_note {
	int line, order;
	bool warning;
	char *text;
};

struct td_cfg_parse {
	struct td_config *c;
	const char *full; /* the file itself, links resolved; NULL: it is none */
	const char *dir;  /* of the file that is being read */
	int depth;	  /* how deep it is included */
	struct td_cfg_file {
		char *name, *full; /* full: links resolved; NULL: it is the first, see above */
		int base, lines;   /* its lines are numbered from base + 1 on */
		int included_on;   /* line of the include that names it; 0: the first file */
	} * files;
	int nfiles;
	struct td_cfg_pattern {
		char *path;
		int line, depth;
	} * patterns; /* of include, in their order */
	int npatterns;
	struct td_note *notes;
	int nnotes, nerrors;
	struct td_section_read *secs;
	int nsecs;
	struct tnl_map *lines; /* "KIND NAME" of sections and " ID" of access keys → the line where they stand */
	struct td_section_read *cur; /* NULL: before the first, or in one that was refused */
	bool skipping;		     /* in a refused section: its keys are not looked at */
	bool has_secret, files_are_errors;
};
/* notes.c */
/* The line where this is taken already, or 0: it is now, on this one. */
int td_cfg_take(struct td_cfg_parse *p, const char *word, const char *name, int line);
int td_cfg_taken(const struct td_cfg_parse *p, const char *word, const char *name); /* that line; 0: it is not */
void td_cfg_error(struct td_cfg_parse *p, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void td_cfg_warn(struct td_cfg_parse *p, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void td_cfg_print_notes(struct td_cfg_parse *p, FILE *errors); /* in the order of lines; frees them */
/* life.c */
bool td_section_same(enum td_section kind, struct td_place a, struct td_place b); /* all values, not the name */
/* Nothing is set but the defaults. */
void td_cfg_set_defaults(struct td_cfg_parse *p, enum td_section kind, int index, int line);
struct stat;
/* read.c: lines → sections and keys. */
void td_cfg_read(struct td_cfg_parse *p, const char *text, size_t len, int base);
/* include.c: further files.  Lines are numbered through; line -k stands for the whole of file k. */
int td_cfg_read_file(struct td_cfg_parse *p, const char *name, const char *dir, const char *text, size_t len,
		     int depth); /* gives its number */
void td_cfg_include(struct td_cfg_parse *p, int line, const char *value);
void td_cfg_read_included(struct td_cfg_parse *p);
void td_cfg_files_free(struct td_cfg_parse *p);
const struct td_cfg_file *td_cfg_file_of(const struct td_cfg_parse *p, int line);
/* "line 3", or "line 3 of FILE" where that is another file than that of the line `from`. */
const char *td_cfg_where(const struct td_cfg_parse *p, int line, int from, char *out, size_t cap);
/* files.c: who may read and write it. */
void td_cfg_check_mode(struct td_cfg_parse *p, int file, const struct stat *st);
/* files.c */
bool td_cfg_others_can_read(const struct stat *st);
bool td_cfg_others_can_write(const struct stat *st);
#define TD_CFG_FILE_MAX ((size_t)64 << 20) /* a gateway has a section of some 120 bytes for each instance */
/* As td_file_read; NULL and *why. */
char *td_cfg_slurp(const char *path, size_t max, unsigned flags, size_t *len, struct stat *st, const char **why);
void td_cfg_check_group(struct td_cfg_parse *p, const struct td_section_read *s); /* whose sockets are */
void td_cfg_check_files(struct td_cfg_parse *p, const struct td_section_read *s); /* there, private, PEM, matching */
/* secrets.c: secrets that stand in files of their own become values, as if they were written in the configuration. */
void td_cfg_load_secrets(struct td_cfg_parse *p, const struct td_section_read *s);
/* copy.c: `to` becomes like `from`, but for its name and where it listens, which is what td_cfg_set_addresses says. */
void td_cfg_copy_tunnel(struct td_place to, const struct td_tunnel_config *from, enum td_section kind);
void td_cfg_set_addresses(struct td_tunnel_config *t, const struct td_addr *v, int n);
/* ranges.c: a tunnel of a range of ports becomes one for each. */
void td_cfg_split_ranges(struct td_cfg_parse *p);
/* check.c: what is missing, what sections owe each other. */
void td_cfg_check(struct td_cfg_parse *p, unsigned roles);
/* notes.c: memory for configuration; ends the process when there is none (libev does the same). */
void *td_cfg_alloc(size_t n);
void *td_cfg_grow(void *p, size_t n);
char *td_cfg_dup(const char *s, size_t n);
struct tnl_map *td_cfg_map(void);

#endif
