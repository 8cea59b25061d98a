# tunneld: `make run` shows a tunnel, `make check` runs every test, `make help` lists the rest.
VERSION := 0.1.0
PREFIX ?= /usr/local
CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
BUILD ?= build
comma := ,
OPT ?= -O2 -g
# V=1 shows the commands.
Q := $(if $(V),,@)
say := $(if $(V)$(findstring s,$(firstword -$(MAKEFLAGS))),@:,@echo)

WARN := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wwrite-strings -Wvla -Wundef -Wformat=2 -Wno-unused-parameter
ifdef CI
WARN += -Werror
endif
# SANITIZE=thread: the one that looks for races; any other value: the two that look at memory and arithmetic.
ifdef SANITIZE
sanitizers := $(if $(filter thread,$(SANITIZE)),thread,address$(comma)undefined)
BUILD := $(BUILD)/$(if $(filter thread,$(SANITIZE)),tsan,san)
OPT := -O1 -g -fno-omit-frame-pointer -fsanitize=$(sanitizers) $(if $(filter thread,$(SANITIZE)),,-fno-sanitize-recover=undefined)
endif

triplet := $(shell $(CC) -dumpmachine 2>/dev/null)
ifdef BORINGSSL_PREFIX
SSL_CFLAGS := -isystem $(BORINGSSL_PREFIX)/include
ssl_dir := $(firstword $(wildcard $(BORINGSSL_PREFIX)/lib $(BORINGSSL_PREFIX)/build))
SSL_LIBS := $(firstword $(wildcard $(ssl_dir)/libssl.a $(ssl_dir)/ssl/libssl.a)) \
	$(firstword $(wildcard $(ssl_dir)/libcrypto.a $(ssl_dir)/crypto/libcrypto.a)) -lstdc++ -lpthread
else
ssl_dir := /usr/lib/$(or $(shell $(CC) -print-multiarch 2>/dev/null),$(triplet))/android
SSL_CFLAGS := -isystem /usr/include/android
SSL_LIBS := -L$(ssl_dir) -Wl,-rpath,$(ssl_dir) -lssl -lcrypto
endif

CPPFLAGS += -I. -D_GNU_SOURCE -DTUNNELD_VERSION='"$(VERSION)"' $(SSL_CFLAGS)
# What the compiler knows of: no way past a guard page, returns and jumps only to where they may go, no garbage in locals.
known = $(shell $(CC) -Werror $(1) -x c -c -o /dev/null /dev/null 2>/dev/null && echo $(1))
HARDEN := -fstack-protector-strong -fPIE $(foreach o,-fstack-clash-protection -fcf-protection -mbranch-protection=standard \
	-ftrivial-auto-var-init=zero,$(call known,$(o)))
ALL_CFLAGS = -std=gnu11 $(OPT) $(WARN) $(HARDEN) -D_FORTIFY_SOURCE=$(if $(SANITIZE),0,2) $(CFLAGS)
ALL_LDFLAGS = $(if $(SANITIZE),-fsanitize=$(sanitizers),-Wl$(comma)-z$(comma)relro$(comma)-z$(comma)now$(comma)-z$(comma)noexecstack) -pie $(LDFLAGS)
LIB_LIBS := -lwslay -lcjson -lhiredis $(SSL_LIBS)
LIBS := -lev -lcares -linih -lsqlite3 -lseccomp -lcrypt $(LIB_LIBS) -lutil -lpthread -lm

LIB_SRC := $(sort $(wildcard lib/*.c))
TD_SRC := $(sort $(wildcard tunneld/*.c tunneld/*/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/obj/%.o)
TD_OBJ := $(TD_SRC:%.c=$(BUILD)/obj/%.o)
LIB := $(BUILD)/libtunneld.a
# Everything of the daemon but main(): an archive, so that a test links the parts that it needs and no others.
# `q`: rooms have files of the same name.
TD_PARTS := $(BUILD)/libparts.a

all: $(BUILD)/tunneld

include tests/tests.mk

$(BUILD)/.deps: Makefile
	@mkdir -p $(BUILD)
	@[ -n '$(if $(BORINGSSL_PREFIX),$(filter %.a,$(SSL_LIBS)),x)' ] || \
	  { echo "no libssl.a and libcrypto.a in $(BORINGSSL_PREFIX)/lib or $(BORINGSSL_PREFIX)/build" >&2; exit 1; }
	@miss=""; for h in ev.h wslay/wslay.h cjson/cJSON.h hiredis/hiredis.h ini.h ares.h sqlite3.h seccomp.h openssl/aead.h; do \
	  printf '#include <%s>\n' $$h | $(CC) $(CPPFLAGS) -E -x c - >/dev/null 2>&1 || miss="$$miss $$h"; done; \
	for h in $$miss; do case $$h in ev.h) p=libev-dev;; wslay*) p=libwslay-dev;; cjson*) p=libcjson-dev;; hiredis*) p=libhiredis-dev;; ini.h) p=libinih-dev;; \
	  ares.h) p=libc-ares-dev;; sqlite3.h) p=libsqlite3-dev;; seccomp.h) p=libseccomp-dev;; openssl*) p="android-libboringssl-dev (or BORINGSSL_PREFIX=)";; esac; \
	  echo "missing: $$h, Debian package $$p" >&2; done; \
	[ -z "$$miss" ] || { echo "install them with: contrib/debian-packages.sh build" >&2; exit 1; }
	@touch $@

$(BUILD)/obj/%.o: %.c $(BUILD)/.deps
	@mkdir -p $(@D)
	$(say) "  CC  $<"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/tunneld/process/page.o: tunneld/process/page.html

$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $(LIB_OBJ)

$(TD_PARTS): $(filter-out $(BUILD)/obj/tunneld/main.o,$(TD_OBJ))
	@rm -f $@
	$(Q)ar qcs $@ $^

$(BUILD)/tunneld: $(TD_OBJ) $(LIB)
	$(say) "  LD  $@"
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(TD_OBJ) $(LIB) $(LIBS)

deps-%:
	@contrib/debian-packages.sh $*

run: deps-run
	@$(MAKE) --no-print-directory -j$$(nproc) $(BUILD)/tunneld
	@BUILD=$(BUILD) TARGET="$(TARGET)" ONCE="$(ONCE)" sh contrib/demo.sh

# A page for each sub-command, and what is linked.
$(BUILD)/man/.made: $(BUILD)/tunneld contrib/manpages.sh $(wildcard docs/man/*.8)
	@mkdir -p $(@D)
	$(Q)contrib/manpages.sh $(BUILD)/tunneld $(BUILD)/man
	@touch $@
$(BUILD)/tunneld.spdx: $(BUILD)/tunneld contrib/sbom.sh contrib/linked.sh
	$(Q)BORINGSSL_PREFIX="$(BORINGSSL_PREFIX)" contrib/sbom.sh $(BUILD)/tunneld $(VERSION) > $@.$$$$ && mv $@.$$$$ $@
sbom: $(BUILD)/tunneld.spdx

share := $(DESTDIR)$(PREFIX)/share
install: $(BUILD)/tunneld $(BUILD)/man/.made
	install -D -m 0755 $(BUILD)/tunneld "$(DESTDIR)$(PREFIX)/bin/tunneld"
	install -D -m 0644 -t "$(share)/man/man8" docs/man/tunneld.8 $(BUILD)/man/tunneld-*.8
	install -D -m 0644 -t "$(share)/man/man5" docs/man/tunneld.ini.5
	install -D -m 0644 -t "$(share)/doc/tunneld" README.md LICENSE docs/*.md docs/status.schema.json
	install -D -m 0644 -t "$(share)/doc/tunneld/examples" conf/*.ini contrib/ssh_config contrib/systemd/*.conf \
	  contrib/prometheus/rules.yml contrib/grafana/tunneld.json
	install -d "$(DESTDIR)$(PREFIX)/lib/systemd/system" "$(share)/bash-completion/completions" \
	  "$(share)/zsh/site-functions" "$(share)/fish/vendor_completions.d"
	$(BUILD)/tunneld completion bash > "$(share)/bash-completion/completions/tunneld"
	$(BUILD)/tunneld completion zsh > "$(share)/zsh/site-functions/_tunneld"
	$(BUILD)/tunneld completion fish > "$(share)/fish/vendor_completions.d/tunneld.fish"
	install -D -m 0644 contrib/systemd/tunneld.sysusers "$(DESTDIR)$(PREFIX)/lib/sysusers.d/tunneld.conf"
	install -D -m 0644 contrib/systemd/tunneld.tmpfiles "$(DESTDIR)$(PREFIX)/lib/tmpfiles.d/tunneld.conf"
	for u in contrib/systemd/*.service; do sed 's|/usr/local|$(PREFIX)|g' $$u > "$(DESTDIR)$(PREFIX)/lib/systemd/system/$${u##*/}"; done
	cd "$(DESTDIR)$(PREFIX)" && chmod 0644 lib/systemd/system/tunneld*.service share/bash-completion/completions/tunneld \
	  share/zsh/site-functions/_tunneld share/fish/vendor_completions.d/tunneld.fish

	! command -v dpkg-query >/dev/null || { $(MAKE) --no-print-directory sbom && \
	  install -m 0644 $(BUILD)/tunneld.spdx "$(share)/doc/tunneld/tunneld.spdx"; }

# A Debian package of it.
DEB_VERSION ?= $(VERSION)
deb: $(BUILD)/tunneld $(BUILD)/man/.made
	@MAKE="$(MAKE)" contrib/deb.sh $(BUILD) $(DEB_VERSION)

# What install puts there, and nothing else: configurations and state stay.
uninstall:
	cd "$(DESTDIR)$(PREFIX)" && rm -rf share/doc/tunneld && rm -f bin/tunneld share/man/man8/tunneld.8 share/man/man8/tunneld-*.8 share/man/man5/tunneld.ini.5 \
	  share/bash-completion/completions/tunneld share/zsh/site-functions/_tunneld share/fish/vendor_completions.d/tunneld.fish \
	  lib/sysusers.d/tunneld.conf lib/tmpfiles.d/tunneld.conf $(patsubst contrib/systemd/%,lib/systemd/system/%,$(wildcard contrib/systemd/*.service))

clean:
	rm -rf build

help:
	@echo "make            build build/tunneld"
	@echo "make run        install what is missing, build, start everything, show a tunnel (TARGET=host:port, ONCE=1)"
	@echo "make check      install what is missing, build and run every test    make check-long  the ones that take minutes"
	@echo "make bench      measure beside TCP and ssh -L, build/bench.json      make fuzz        run the fuzzers (FUZZ_SECONDS=60)"
	@echo "make check-instructions  what a message costs, against the record (ARGS=--record writes it)"
	@echo "make check-fresh  make run and make check in a new Debian 12, as root   (FRESH=run: only the first)"
	@echo "make lint       rooms, clang-format, clang-tidy, cppcheck (FILE=)    make install     PREFIX= DESTDIR= (uninstall)"
	@echo "make deb        a Debian package in build/deb                    make sbom        what is linked, build/tunneld.spdx"
	@echo "SANITIZE=1      ASan + UBSan build in build/san (thread: TSan, build/tsan)  BORINGSSL_PREFIX=  an upstream BoringSSL tree"

-include $(LIB_OBJ:.o=.d) $(TD_OBJ:.o=.d)
.PHONY: all run deb sbom install uninstall clean help
.DELETE_ON_ERROR:
