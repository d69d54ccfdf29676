// The driver inside Grafana's ClickHouse data source, as that data source opens it over HTTP, asking what it is given.
//
//	judge HOST:PORT PASSWORD < statements.jsonl > answers.jsonl
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

type question struct {
	SQL string `json:"sql"`
}

type answer struct {
	Columns []string   `json:"columns"`
	Types   []string   `json:"types"`
	Rows    [][]string `json:"rows"`
	Count   int        `json:"count"`
	Error   string     `json:"error"`
}

const shown = 20

func main() {
	db := clickhouse.OpenDB(&clickhouse.Options{
		Protocol:    clickhouse.HTTP,
		Addr:        []string{os.Args[1]},
		HttpUrlPath: "/clickhouse",
		Auth:        clickhouse.Auth{Database: "tailsight", Username: "grafana", Password: os.Args[2]},
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionGZIP},
		DialTimeout: 10 * time.Second,
		ReadTimeout: 60 * time.Second,
	})
	out := json.NewEncoder(os.Stdout)
	ask(out, func(ctx context.Context) (answer, error) { return answer{}, db.PingContext(ctx) })
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one question
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		ask(out, func(ctx context.Context) (answer, error) {
			var found answer
			rows, err := db.QueryContext(ctx, one.SQL)
			if err != nil {
				return found, err
			}
			defer rows.Close()
			if found.Columns, err = rows.Columns(); err != nil {
				return found, err
			}
			types, err := rows.ColumnTypes()
			if err != nil {
				return found, err
			}
			for _, one := range types {
				found.Types = append(found.Types, one.DatabaseTypeName())
			}
			for rows.Next() {
				values := make([]any, len(found.Columns))
				places := make([]any, len(values))
				for i := range values {
					places[i] = &values[i]
				}
				if err := rows.Scan(places...); err != nil {
					return found, err
				}
				if found.Count++; found.Count <= shown {
					texts := make([]string, len(values))
					for i, value := range values {
						texts[i] = fmt.Sprint(value)
					}
					found.Rows = append(found.Rows, texts)
				}
			}
			return found, rows.Err()
		})
	}
}

func ask(out *json.Encoder, run func(context.Context) (answer, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	found, err := run(ctx)
	if err != nil {
		found.Error = err.Error()
	}
	_ = out.Encode(found)
}
